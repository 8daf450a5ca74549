#!/usr/bin/env python3
"""Runs `tamis select` over data sets, embedders, agents and seeds, and writes the tables of docs/results.md.

    cargo build --release
    python3 benches/results.py --data <folder of data sets> --minilm <folder of all-MiniLM-L6-v2> --out runs/results

Each run has a folder of its own under --out: a second start goes on where the first ended. Standard library only.
A data set is a folder with train.jsonl, validation.jsonl and test.jsonl.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
import subprocess

from built import program

SETS = {"hate_merged": "macro-f1", "app_reviews_stars": "accuracy"}
SEEDS = range(5)


def targeted(data, out):
    """hate_merged with the validation and test rows of one source only; the pool stays whole."""
    folder = out / "data" / "targeted"
    folder.mkdir(parents=True, exist_ok=True)
    for split in ["validation", "test"]:
        with open(data / "hate_merged" / f"{split}.jsonl", encoding="utf-8") as file:
            lines = [line for line in file if json.loads(line)["source"].startswith("edos2023")]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return data / "hate_merged" / "train.jsonl", folder / "validation.jsonl", folder / "test.jsonl"


def run(arguments, files, name, flags):
    out = arguments.out / name
    if not (out / "selection.json").exists():
        train, validation, test = files
        command = [arguments.program, "select", "--train", train, "--validation", validation]
        command += ["--test", test, "--out", out, "--cache", arguments.out / "cache", "--threads", 1]
        command += ["--order", "random", "--within", "all", "--doubtful", 0, "--reward", "soft", *flags]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(name, flush=True)
    return json.loads((out / "selection.json").read_text(encoding="utf-8"))


def spread(values):
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def row(label, records):
    confirm = [record["scores"]["confirm"]["chosen"] for record in records]
    test = [record["scores"]["test"]["chosen"] for record in records]
    gains = [record["scores"]["test"]["chosen"] - record["scores"]["test"]["random_mean"] for record in records]
    unit = statistics.mean(record["scores"]["test"]["random_sd"] for record in records)
    reward = [record["scores"]["reward"]["chosen"] for record in records]
    evaluations = statistics.mean(record["evaluations"] for record in records)
    seconds = statistics.mean(sum(s["seconds"] for s in record["stages"] if s["name"] == "select") for record in records)
    return (
        f"| {label} | {spread(reward)} | {spread(confirm)} | {spread(test)} | {statistics.mean(gains):+.4f} "
        f"({statistics.mean(gains) / unit:+.1f} sd) | {evaluations:.0f} | {seconds:.1f} |"
    )


def controls(records):
    lines = []
    for key, label in [("random_mean", "random rows (mean of 10 draws)"), ("everything", "everything")]:
        values = [[record["scores"][fold][key] for record in records] for fold in ["reward", "confirm", "test"]]
        lines.append(f"| {label} | {spread(values[0])} | {spread(values[1])} | {spread(values[2])} | | | |")
    return lines


def table(arguments, title, files, metric, embedder, budget, variants):
    lines = [f"### {title}", "", "| | reward fold (soft) | confirm | test | above random rows on test | evaluations | search, s on one core |"]
    lines.append("|---|---|---|---|---|---|---|")
    records = []
    key = title.replace(" ", "_").replace(",", "").replace("%", "").replace("/", "_")
    for label, flags in variants:
        name = f"{key}/{label.replace(' ', '_').replace(',', '')}"
        settings = ["--embedder", embedder, "--metric", metric, "--budget", budget, *flags]
        # One core a run, one run a core: faster than one run after the other on all cores, and the same results.
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            go = lambda seed: run(arguments, files, f"{name}/{seed}", [*settings, "--seed", seed])
            records = list(pool.map(go, SEEDS))
        lines.append(row(label, records))
    return lines + controls(records) + [""]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--minilm", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/results"))
    parser.add_argument("--only", default="", metavar="WORD", help="the tables whose titles hold it")
    arguments = parser.parse_args()
    arguments.program = program()
    agents = [(agent, ["--agent", agent]) for agent in ["dqn", "greedy", "random"]]
    whole = [("dqn, whole clusters", ["--agent", "dqn", "--chunk", "cluster"])]
    embedders = [("MiniLM", arguments.minilm), ("lexical", "lexical")]
    tables = []
    for name, metric in SETS.items():
        files = [arguments.data / name / f"{split}.jsonl" for split in ["train", "validation", "test"]]
        for embedder, path in embedders:
            variants = agents + (whole if embedder == "MiniLM" else [])
            tables.append((f"{name}, {embedder}, 5%", files, metric, path, "5%", variants))
    files = targeted(arguments.data, arguments.out)
    for embedder, path in embedders:
        title = f"targeted: edos2023 from all of hate_merged, {embedder}, 1000 rows"
        tables.append((title, files, "macro-f1", path, "1000", agents))
    lines = []
    for title, *rest in tables:
        if arguments.only in title:
            lines += table(arguments, title, *rest)
    (arguments.out / "tables.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
