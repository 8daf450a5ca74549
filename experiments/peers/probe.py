"""Seconds of an evaluation of the ridge probe by numpy and scipy, float32, one thread: python probe.py <classes ...>.

The same work as ours: add a chunk's sums, centre, factor, solve for all classes, score 1,000 rows, softmax, log loss.
"""

import os

os.environ.update({name: "1" for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]})

import json
import statistics
import sys
import time

import numpy
import scipy.linalg

WIDTH, ROWS, RIDGE, TEMPERATURE = 384, 1000, 10.0, 0.1


def design(rows, classes, seed):
    rng = numpy.random.default_rng(seed)
    return rng.uniform(-1, 1, (rows, WIDTH)).astype("float32"), rng.integers(0, classes, rows)


def sums(x, y, classes):
    targets = numpy.eye(classes, dtype="float32")[y]
    return len(x), x.sum(0), x.T @ x, x.T @ targets, targets.sum(0)


def evaluation(before, chunk, fold, answers):
    n, sum_x, gram, cross, sum_y = [a + b for a, b in zip(before, chunk)]
    centred = gram - numpy.outer(sum_x, sum_x) / numpy.float32(n)
    centred[numpy.diag_indices(WIDTH)] += RIDGE
    right = cross - numpy.outer(sum_x, sum_y) / numpy.float32(n)
    factor = scipy.linalg.cho_factor(centred, overwrite_a=True, check_finite=False)
    weights = scipy.linalg.cho_solve(factor, right, overwrite_b=True, check_finite=False)
    scores = fold @ weights
    scores += (sum_y - sum_x @ weights) / numpy.float32(n)
    scores -= scores.max(1, keepdims=True)
    scores /= TEMPERATURE
    right_scores = scores[numpy.arange(ROWS), answers].copy()
    numpy.exp(scores, out=scores)
    return float((right_scores - numpy.log(scores.sum(1))).mean())


seconds = {}
for classes in map(int, sys.argv[1:]):
    (x, y), (fold, answers) = design(ROWS, classes, 1), design(ROWS, classes, 2)
    before, chunk = sums(x[:500], y[:500], classes), sums(x[500:525], y[500:525], classes)
    taken = []
    for _ in range(30 if classes > 200 else 200):
        began = time.perf_counter()
        assert numpy.isfinite(evaluation(before, chunk, fold, answers))
        taken.append(time.perf_counter() - began)
    seconds[classes] = statistics.median(taken)
print(json.dumps(seconds))
