#!/usr/bin/env python3
"""Runs `tamis select` on made-up rows of every size, with any number of classes and evaluations.

Measures  seconds and peak memory of each stage of a selection as rows, classes or evaluations grow, and where vectors are given.
Needs     numpy, the release build; 20 GB of disk for ten million rows.
Prints    the tables of docs/results/scale.md.

    cargo build --release
    python3 experiments/scale.py [--only rows] [--rows 10000 100000 1000000 10000000]

Rows are 14 words of a vocabulary of 50,000, six of them of one of 200 topics that tell the label four times in five. With
classes, vectors are given: a Gaussian around each class. All have one seed, and one agent: `dqn`.
"""

import argparse
import math
import pathlib

import lib

SECTIONS = ["rows", "classes", "evaluations", "given"]
BLOCK = 20_000


def texts(folder, rows):
    """Files of so many training rows, and 4,000 of each other split."""
    import numpy

    rng = numpy.random.default_rng(0)
    letters = lambda: "".join(chr(97 + c) for c in rng.integers(0, 26, rng.integers(3, 10)))
    words = numpy.array([letters() for _ in range(50_000)])
    share = 1 / numpy.arange(1, len(words) + 1) ** 1.05
    topics, label_of = rng.integers(0, len(words), (200, 40)), rng.integers(0, 5, 200)
    for split, count in {"validation": 4000, "test": 4000, "train": rows}.items():
        with open(folder / f"{split}.jsonl", "w", encoding="utf-8") as file:
            for start in range(0, count, BLOCK):
                n = min(BLOCK, count - start)
                topic = rng.integers(0, len(topics), n)
                common = rng.choice(len(words), (n, 8), p=share / share.sum())
                own = topics[topic[:, None], rng.integers(0, topics.shape[1], (n, 6))]
                label = numpy.where(rng.random(n) < 0.8, label_of[topic], rng.integers(0, 5, n))
                for row, y in zip(words[numpy.concatenate([common, own], 1)], label):
                    file.write(f'{{"text":"{" ".join(row)}","label":"l{y}"}}\n')


def vectors(folder, classes, rows=20_000, groups=1, width=384):
    """The same with so many classes, and a file of vectors: a Gaussian around each of the groups that a class has."""
    import numpy

    rng = numpy.random.default_rng(0)
    centres, parts = rng.normal(size=(classes * groups, width)), []
    for split, count in {"train": rows, "validation": 4000, "test": 4000}.items():
        group = numpy.concatenate([numpy.arange(len(centres)), rng.integers(0, len(centres), count - len(centres))])
        part = centres[group] + 3 * rng.normal(size=(count, width))
        parts.append(part / numpy.linalg.norm(part, axis=1, keepdims=True))
        lines = [f'{{"text":"{split} {i}","label":"l{c}"}}' for i, c in enumerate(group % classes)]
        lib.write_lines(folder / f"{split}.jsonl", lines)
    numpy.save(folder / "vectors.npy", numpy.concatenate(parts).astype("float16"))


def made(folder, make, *size):
    """The flags of files in a folder, which are made if they are not there."""
    done = folder / "done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, *size)
        done.touch()
    return [part for split in lib.SPLITS for part in [f"--{split}", folder / f"{split}.jsonl"]]


def stages(record):
    return {stage["name"]: stage for stage in record["stages"]}


def tables(name, sizes, records, unit):
    """Seconds of each stage and their growth from the last size but one to the last, then the peak memory."""
    records = [stages(record) for record in records]
    growth = math.log(sizes[-1] / sizes[-2]) if len(sizes) > 1 else None

    def exponent(values):
        return f"{math.log(values[-1] / values[-2]) / growth:.1f}" if growth and min(values[-2:]) > 0.05 else ""

    rows = []
    for stage in records[-1]:
        seconds = [record[stage]["seconds"] for record in records]
        if max(seconds) >= 0.3:
            rows.append([stage, *[f"{value:.1f}" for value in seconds], exponent(seconds)])
    whole = [sum(stage["seconds"] for stage in record.values()) for record in records]
    peaks = [max(stage["peak_bytes"] for stage in record.values()) for record in records]
    rows.append(["**all, seconds**", *[f"{value:.1f}" for value in whole], exponent(whole)])
    rows.append(["**peak memory, MB**", *[f"{value / 1e6:.0f}" for value in peaks], exponent(peaks)])
    header = [f"stage, seconds, by {name}", *[f"{size:,}" for size in sizes], "exponent"]
    return f"## By {name}\n\n{unit}\n\n{lib.table(header, rows)}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs") / "scale", help="the work folder")
    parser.add_argument("--tamis", type=pathlib.Path, help="the binary; the release build by default")
    parser.add_argument("--print", action="store_true", help="make the data and print the commands instead of running them")
    parser.add_argument("--only", action="append", choices=SECTIONS)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 20, 150, 1000])
    parser.add_argument("--given", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--evaluations", type=int, nargs="+", default=[100, 1000, 10_000, 100_000])
    options = parser.parse_args()
    options.out = options.out.resolve()
    runner = lib.Runner(options)

    def select(files, *flags):
        return runner.run("select", *files, "--agent", "dqn", *flags, record="selection.json").record

    def print_table(name, sizes, records, unit):
        if all(records):
            print(tables(name, sizes, records, unit), flush=True)

    data = options.out / "data"
    for name in options.only or SECTIONS:
        if name == "rows":
            runs = [select(made(data / f"rows-{n}", texts, n), "--budget", "1%", "--max-evaluations", 1000) for n in options.rows]
            print_table(name, options.rows, runs, "Short texts, five labels, lexical embedder, 1%, 1,000 evaluations.")
        elif name == "classes":
            runs = []
            for k in options.classes:
                folder = data / f"classes-{k}"
                files = made(folder, vectors, k)
                runs.append(select(files, "--embedder", folder / "vectors.npy", "--budget", "5%", "--max-evaluations", 2000))
            print_table(name, options.classes, runs, "20,000 rows, vectors of 384 numbers given, 5%, 2,000 evaluations.")
        elif name == "given":
            runs = []
            for n in options.given:
                folder = data / f"given-{n}"
                files = made(folder, vectors, 5, n, 200)
                runs.append(select(files, "--embedder", folder / "vectors.npy", "--budget", "1%", "--max-evaluations", 1000))
            print_table("rows given", options.given, runs, "Vectors of 384 numbers given as float16, five labels, 1%, 1,000 evaluations.")
        else:
            n = 20_000
            files = made(data / f"rows-{n}", texts, n)
            runs = [select(files, "--budget", "5%", "--max-evaluations", count) for count in options.evaluations]
            print_table(name, options.evaluations, runs, "20,000 short texts, lexical embedder, 5%.")


if __name__ == "__main__":
    main()
