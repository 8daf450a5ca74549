#!/usr/bin/env python3
"""Runs `tamis check clusters` over data sets and over noise.

Measures  silhouettes, the stability of clusters over seeds, and what they tell of labels.
Needs     the data sets, the release build; numpy for the noise, which is given as vectors for banking77's rows.
Prints    the table of docs/lab/2026-11-clusters.md.

    cargo build --release
    python3 experiments/clusters.py --data DATA
"""

import lib

# What is checked: name, case, number of clusters, dimensions of noise.
CHECKS = [
    ("banking77", "banking77", None, None),
    ("app_reviews_stars", "app_reviews_stars", None, None),
    ("hate_merged", "hate_merged", None, None),
    ("banking77, `--clusters 8`", "banking77", 8, None),
    ("banking77, `--clusters 1500`", "banking77", 1500, None),
    *[(f"noise of {dim} dimensions", "banking77", None, dim) for dim in [256, 16, 8, 4, 2]],
]
HEADER = ["rows", "clusters", "silhouette (random)", "adjusted Rand index", "cloud", "purity (random)",
          "mutual information (random)", "verdict"]


def noise(options, files, dim):
    """A file with one random unit vector a line of train, then validation."""
    path = options.out / f"noise-{dim}.npy"
    if not path.exists() and not options.print:
        import numpy

        rows = sum(len(lib.lines_of(file)) for file in files.train + files.validation)
        vectors = numpy.random.default_rng(0).standard_normal((rows, dim)).astype("float32")
        path.parent.mkdir(parents=True, exist_ok=True)
        numpy.save(path, vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True))
    return path


def short(value):
    return f"{value:.2f}".replace("0.", ".", 1)


def row(name, record):
    first, labels = record["counts"][0], record["labels"]
    silhouette = f"{first['silhouette']:.3f} ({first['silhouette_random']:.3f})".replace("0.", ".")
    ranged = f"{short(first['stability'])} ({short(first['stability_least'])} to {short(first['stability_greatest'])})"
    of_labels = [f"{short(labels[what])} ({short(labels[what + '_random'])})" for what in ["purity", "mutual_information"]]
    verdict = record["verdict"].split(":")[0].lower()
    return [name, first["clusters"], silhouette, ranged, short(first["stability_cloud"]), *of_labels, verdict]


def main():
    options = lib.parser(__doc__, "clusters", model=False).parse_args()
    runner = lib.Runner(options)
    rows = []
    for name, case, clusters, dim in CHECKS:
        files = lib.whole(lib.cases()[case], options)
        flags = ["--clusters", clusters] if clusters else []
        flags += ["--embedder", noise(options, files, dim)] if dim else []
        record = runner.run("check", "clusters", *files.flags("train", "validation"), *flags, record="check_clusters.json").record
        rows += [row(name, record)] if record else []
    if rows:
        print(lib.table(HEADER, rows))


if __name__ == "__main__":
    main()
