#!/usr/bin/env python3
"""Runs `tamis check clusters` over data sets and over noise, and prints the table of docs/clusters.md.

    cargo build --release
    python3 benches/clusters.py --data <folder of data sets> --out runs/clusters

Noise is given as vectors for banking77's rows; it needs numpy.
"""

import argparse
import json
import pathlib
import subprocess

from built import program

# What is checked: name, data set, number of clusters, dimensions of noise.
CASES = [
    ("banking77", "banking77", None, None),
    ("app_reviews_stars", "app_reviews_stars", None, None),
    ("hate_merged", "hate_merged", None, None),
    ("banking77, `--clusters 8`", "banking77", 8, None),
    ("banking77, `--clusters 1500`", "banking77", 1500, None),
    *[(f"noise of {dim} dimensions", "banking77", None, dim) for dim in [256, 16, 8, 4, 2]],
]
SPLITS = ["train", "validation"]


def noise(arguments, data, dim):
    """A file with one random unit vector a line of train, then validation."""
    import numpy

    rows = sum(len((arguments.data / data / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()) for split in SPLITS)
    vectors = numpy.random.default_rng(0).standard_normal((rows, dim)).astype("float32")
    path = arguments.out / f"noise-{dim}.npy"
    numpy.save(path, vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True))
    return path


def check(arguments, number, data, clusters, dim):
    out = arguments.out / str(number)
    record = out / "check_clusters.json"
    if not record.exists():
        command = [program(), "check", "clusters", "--out", out]
        for split in SPLITS:
            command += [f"--{split}", arguments.data / data / f"{split}.jsonl"]
        command += ["--clusters", clusters] if clusters else []
        command += ["--embedder", noise(arguments, data, dim)] if dim else []
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return json.loads(record.read_text(encoding="utf-8"))


def short(value):
    return f"{value:.2f}".replace("0.", ".", 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/clusters"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print("| rows | clusters | silhouette (random) | adjusted Rand index | cloud | purity (random) | mutual information (random) | verdict |")
    print("|---|---|---|---|---|---|---|---|")
    for number, (name, data, clusters, dim) in enumerate(CASES):
        record = check(arguments, number, data, clusters, dim)
        first, labels = record["counts"][0], record["labels"]
        silhouette = f"{first['silhouette']:.3f} ({first['silhouette_random']:.3f})".replace("0.", ".")
        ranged = f"{short(first['stability'])} ({short(first['stability_least'])} to {short(first['stability_greatest'])})"
        told = [f"{short(labels[what])} ({short(labels[what + '_random'])})" for what in ["purity", "mutual_information"]]
        verdict = record["verdict"].split(":")[0].lower()
        print(f"| {name} | {first['clusters']} | {silhouette} | {ranged} | {short(first['stability_cloud'])} | {told[0]} | {told[1]} | {verdict} |", flush=True)


if __name__ == "__main__":
    main()
