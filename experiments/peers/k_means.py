"""Seconds and inertia of others on the same points: python k_means.py make|run <points.f32> <how many>."""

import json
import os
import sys
import time

import numpy

DIM, K = 384, 200
mode, path, count = sys.argv[1:]
POINTS = int(count)
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
# By default faiss fits centroids on a sample of 256 points each.
for name, most in {"25 passes": POINTS, "25 passes, its default sample": 256}.items():
    engine = faiss.Kmeans(DIM, K, niter=25, seed=0, max_points_per_centroid=most)
    began = time.perf_counter()
    engine.train(points)
    distances, _ = engine.index.search(points, 1)
    seconds = time.perf_counter() - began
    results[f"faiss {name}"] = [seconds, float(distances.sum())]
# Minutes on more.
if POINTS <= 100_000:
    engine = KMeans(K, n_init=1, max_iter=25, tol=1e-4, random_state=0, algorithm="lloyd")
    began = time.perf_counter()
    engine.fit(points)
    results[f"scikit-learn lloyd, {engine.n_iter_} passes"] = [time.perf_counter() - began, float(engine.inertia_)]
print(json.dumps(results))
