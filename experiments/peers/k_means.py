"""Seconds and inertia of others on the same points: python k_means.py make|run <points.f32>."""

import json
import os
import sys
import time

import numpy

POINTS, DIM, K = 100_000, 384, 200
mode, path = sys.argv[1:]
if mode == "make":
    # A thousand overlapping groups at unit length: about as clustered as sentence embeddings are.
    rng = numpy.random.default_rng(1)
    centres = rng.normal(size=(1000, DIM))
    points = centres[rng.integers(0, 1000, POINTS)] + 1.2 * rng.normal(size=(POINTS, DIM))
    points /= numpy.linalg.norm(points, axis=1, keepdims=True)
    points.astype("<f4").tofile(path)
    sys.exit()

import faiss
from sklearn.cluster import KMeans

points = numpy.fromfile(path, dtype="<f4").reshape(POINTS, DIM)
results = {}
faiss.omp_set_num_threads(os.cpu_count())
for iterations in [25]:
    # By default faiss clusters a sample of 256 points a centroid; all points are asked for here.
    engine = faiss.Kmeans(DIM, K, niter=iterations, seed=0, max_points_per_centroid=POINTS)
    began = time.perf_counter()
    engine.train(points)
    distances, _ = engine.index.search(points, 1)
    seconds = time.perf_counter() - began
    results[f"faiss {iterations} passes"] = [seconds, float(distances.sum())]
for algorithm in ["lloyd"]:
    engine = KMeans(K, n_init=1, max_iter=25, tol=1e-4, random_state=0, algorithm=algorithm)
    began = time.perf_counter()
    engine.fit(points)
    results[f"scikit-learn {algorithm}, {engine.n_iter_} passes"] = [time.perf_counter() - began, float(engine.inertia_)]
print(json.dumps(results))
