#!/usr/bin/env python3
"""Runs `tamis study` over data sets and prints the tables of docs/results.md.

    cargo build --release
    python3 benches/studies.py --data <folder of data sets> --minilm <folder of all-MiniLM-L6-v2> --out runs/studies [--case NAME ...] [-- FLAGS]

    pip install -r benches/peers/requirements.txt
    python3 benches/studies.py --peers ...     # instead: other programs' selections beside ours, on the same vectors

What stands behind `--` goes to `tamis study` as it is, such as `-- --seeds 3 --judge finetune`. Studies go on where they ended, so a
second start prints the tables again. With --rows the sets are cut to so many training rows, and to --judge-rows rows in each of validation
and test. With --peers they are cut to 20,000 if nothing else is said, vectors are sentence-transformers', and every program is given the
same file of them. Standard library only without --peers.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys

from built import program

# name: (training folder, folders of test files, metric)
CASES = {
    "banking77": ("banking77", ["banking77"], "accuracy"),
    "questions": ("mmlu_aux", ["mmlu_aux", "mmlu"], "accuracy"),
    "app_reviews_stars": ("app_reviews_stars", ["app_reviews_stars"], "accuracy"),
    "nli_merged": ("nli_merged", ["nli_merged", "anli"], "accuracy"),
    "hate_merged": ("hate_merged", ["hate_merged"], "macro-f1"),
}
PEER_CASES = ["banking77", "app_reviews_stars", "hate_merged"]
PEERS = ["dsir", "apricot", "cleanlab"]


def study(arguments, name, files, embedder, more):
    out = arguments.out / name
    train, validation, tests = files
    command = [program(), "study", "--train", train, "--validation", validation, "--test", *tests, "--metric", CASES[name.split("/")[-1]][2],
               "--embedder", embedder, "--cache", arguments.out / "cache", "--out", out, *more]
    # Status 1 says that cells failed, and the table which.
    ended = subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL)
    if ended.returncode not in (0, 1):
        ended.check_returncode()
    print(f"#### {name}\n\n" + (out / "study.md").read_text(encoding="utf-8").replace("### ", "##### "), flush=True)
    return json.loads((out / "study.json").read_text(encoding="utf-8"))


def summary(studies):
    """All studies side by side: the first test file's scores, and * where the paired test against random rows, adjusted, is below .05."""
    for budgets in zip(*(study["budgets"] for study in studies.values())):
        names = [f"{name}, {budget}" for name, budget in zip(studies, budgets)]
        print("#### Side by side\n\n| method | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
        lines = {name: {line["method"]: line for line in study["methods"] if line["budget"] == budget}
                 for (name, study), budget in zip(studies.items(), budgets)}
        for method in dict.fromkeys(method for of in lines.values() for method in of):
            print(f"| {method} | " + " | ".join(shown(of.get(method)) for of in lines.values()) + " |")
        print()


def shown(line):
    if not line or not line["scores"]:
        return "failed" if line else ""
    column = min(1, len(line["scores"]) - 1)
    score, gains = line["scores"][column], line["gains"]
    sure = gains and gains[column].get("adjusted", 1) < 0.05
    mark = "" if not sure else "*" if gains[column]["mean"] > 0 else " (worse*)"
    return f"{score['mean']:.4f} ± {score['sd']:.4f}{mark}"


def whole(arguments, name):
    train, tests, _ = CASES[name]
    folder = arguments.data / train
    return folder / "train.jsonl", folder / "validation.jsonl", [arguments.data / test / "test.jsonl" for test in tests]


def cut(arguments, name, rows):
    """The first rows of each file, shuffled."""
    train, validation, tests = whole(arguments, name)
    folder = arguments.out / "data" / f"{name}-{rows}-{arguments.judge_rows}"
    shuffled = random.Random(2)

    def first(path, most):
        lines = path.read_text(encoding="utf-8").strip().split("\n")
        shuffled.shuffle(lines)
        there = folder / path.parent.name / path.name
        if not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_text("\n".join(lines[:most]) + "\n", encoding="utf-8")
        return there

    return first(train, rows), first(validation, arguments.judge_rows), [first(test, arguments.judge_rows) for test in tests]


def vectors_of(arguments, folder):
    path = folder / "vectors.npy"
    if not path.exists():
        import numpy
        from sentence_transformers import SentenceTransformer

        texts = []
        for split in ["train", "validation", "test"]:
            texts += [json.loads(line)["text"] for line in (folder / f"{split}.jsonl").open(encoding="utf-8")]
        model = SentenceTransformer(str(arguments.minilm), device="cpu")
        numpy.save(path, model.encode(texts, batch_size=32, normalize_embeddings=True))
    return path


def peers(arguments, name, more):
    files = cut(arguments, name, arguments.rows or 20000)
    folder = files[0].parent
    vectors = vectors_of(arguments, folder)
    rows = sum(1 for _ in files[0].open(encoding="utf-8"))
    budget = round(rows * 0.05)
    chosen = arguments.out / "peers" / f"{name}-{rows}-{arguments.judge_rows}"
    script = pathlib.Path(__file__).parent / "peers" / "selection.py"
    told = {}
    for peer in PEERS:
        log = chosen / f"{peer}.jsonl"
        if not log.exists():
            chosen.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, script, peer, folder, vectors, "--budget", budget, "--seeds", "0,1,2,3,4", "--out", chosen]
            log.write_text(subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout)
        told[peer] = [json.loads(line) for line in log.read_text().splitlines()]
    given = [part for peer in PEERS for part in ["--selection", f"{peer}={chosen}/{peer}-{{seed}}.txt"]]
    record = study(arguments, f"with-peers-{rows}-{arguments.judge_rows}/{name}", files, vectors, ["--budget", budget, *given, *more])
    print("| program | seconds | peak memory, MB | |\n|---|---|---|---|")
    for peer, lines in told.items():
        seconds = sum(line["seconds"] for line in lines) / len(lines)
        peak = max(line["peak_bytes"] for line in lines) / 1e6
        print(f"| {peer} | {seconds:.1f} | {peak:.0f} | {lines[0]['note']} |")
    print()
    return record


def main():
    own = sys.argv[1:]
    more = []
    if "--" in own:
        own, more = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--minilm", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/studies"))
    parser.add_argument("--case", nargs="*", choices=CASES)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--judge-rows", type=int, default=4000)
    arguments = parser.parse_args(own)
    studies = {}
    for name in arguments.case or (PEER_CASES if arguments.peers else CASES):
        if arguments.peers:
            studies[name] = peers(arguments, name, more)
        else:
            files = cut(arguments, name, arguments.rows) if arguments.rows else whole(arguments, name)
            studies[name] = study(arguments, name, files, arguments.minilm, more)
    summary(studies)


if __name__ == "__main__":
    main()
