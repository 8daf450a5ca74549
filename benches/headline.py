#!/usr/bin/env python3
"""Fine-tunes the target on everything, on random rows and on tamis's choice, and prints the tables of docs/results.md.

    cargo build --release
    python3 benches/headline.py --data <folder of data sets> --model <folder of all-MiniLM-L6-v2> --out runs/headline [--case NAME ...]

    python3 benches/headline.py --ladder ...    # instead: how well each reward ranks selections as the fine-tuned target does

A case is a pool of at most --rows training rows and the validation and test rows of one task. Cells run side by side, each on one
core; their seconds count everything that a user waits for: embedding, clustering, adapting, search, fine-tune. What is finished
is kept in <out>/cells.json; a second start goes on from there.
"""

import argparse
import concurrent.futures
import json
import math
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import threading

from built import program


# name: (folders of the pool, folder of validation and test, which of its rows, metric)
CASES = {
    "reviews": (["app_reviews_stars"], "app_reviews_stars", None, "accuracy"),
    "hate": (["hate_merged"], "hate_merged", None, "macro-f1"),
    "nli": (["nli_merged"], "nli_merged", None, "accuracy"),
    "edos2023": (["hate_merged"], "hate_merged", ("source", "edos2023"), "macro-f1"),
    "hateval2019_en": (["hate_merged"], "hate_merged", ("source", "hateval2019_en"), "macro-f1"),
    "davidson2017": (["hate_merged"], "hate_merged", ("source", "davidson2017"), "macro-f1"),
    "anli": (["nli_merged"], "anli", None, "accuracy"),
    "sick": (["nli_merged"], "nli_merged", ("source", "sick"), "accuracy"),
    "lingnli": (["nli_merged"], "nli_merged", ("source", "lingnli"), "accuracy"),
    "snli_counterfactual": (["nli_merged"], "nli_merged", ("source", "snli_counterfactual"), "accuracy"),
    "questions": (["race", "mmlu_aux"], "mmlu_aux", None, "accuracy"),
    "mmlu": (["race", "mmlu_aux"], "mmlu", None, "accuracy"),
    "threads": (["app_reviews_stars"], "app_reviews_stars", ("source", "threads_2023"), "accuracy"),
    "netflix": (["app_reviews_stars"], "app_reviews_stars", ("source", "netflix"), "accuracy"),
}
# Cases of one pool share the targets that were trained on random rows and on everything: those of the case named here, scored on
# the test rows of all of them.
BASES = {
    "anli": "nli",
    "sick": "nli",
    "lingnli": "nli",
    "snli_counterfactual": "nli",
    "mmlu": "questions",
    "threads": "reviews",
    "netflix": "reviews",
    "edos2023": "hate",
    "hateval2019_en": "hate",
    "davidson2017": "hate",
}


def lines_of(path):
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def tests_of(name):
    """The cases whose test rows a target of this case is scored on."""
    return [name, *(other for other, base in BASES.items() if base == name)]


def folder_of(arguments, name):
    """The folder of a case's three files, which are written if they are not there."""
    pools, task, only, _ = CASES[name]
    folder = arguments.out / "data" / name
    if not (folder / "test.jsonl").exists():
        folder.mkdir(parents=True, exist_ok=True)
        # One generator for all three splits, in this order.
        shuffled = random.Random(2)
        pool = [line for part in pools for line in lines_of(arguments.data / part / "train.jsonl")]
        shuffled.shuffle(pool)
        splits = {"train": pool[: arguments.rows]}
        for split in ["validation", "test"]:
            rows = lines_of(arguments.data / task / f"{split}.jsonl")
            if only:
                rows = [line for line in rows if json.loads(line).get(only[0]) == only[1]]
            shuffled.shuffle(rows)
            splits[split] = rows[: arguments.validation_rows if split == "validation" else arguments.judge_rows]
        for split, rows in splits.items():
            (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def files_of(arguments, name):
    folder = folder_of(arguments, name)
    return ["--train", folder / "train.jsonl", "--validation", folder / "validation.jsonl"]


def test_files_of(arguments, names):
    return ["--test", *(folder_of(arguments, name) / "test.jsonl" for name in names)]


def run(arguments, *command):
    subprocess.run([str(part) for part in [arguments.tamis, *command]], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def work(arguments, key):
    """An empty folder for one cell."""
    folder = arguments.out / "work" / "".join(letter if letter.isalnum() else "-" for letter in key)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def fine_tuned(arguments, name, seed, folder, *what, epochs=None, files=None):
    out = folder / "target"
    run(arguments, "finetune", *(files or files_of(arguments, name)), *test_files_of(arguments, tests_of(name)), "--model", arguments.model,
        "--epochs", epochs or arguments.epochs, "--max-length", arguments.max_length, "--seed", seed, "--threads", 1, "--out", out, *what)
    record = json.loads((out / "metrics.json").read_text())
    shutil.rmtree(folder)
    metric = "macro_f1" if CASES[name][3] == "macro-f1" else "accuracy"
    by_file = record.get("tests") or {f"{name}/test": record["test"]}
    scores = {test: by_file[f"{test}/test"][metric] for test in tests_of(name)}
    tuned = {test: by_file[f"{test}/test"].get(f"tuned_{metric}") for test in tests_of(name)}
    return {"scores": scores, "tuned": tuned, "seconds": record["train_seconds"]}


def dtype_of(flags):
    """The flag that says in which numbers texts are embedded, and its value, or nothing."""
    return flags[flags.index("--embed-dtype"):][:2] if "--embed-dtype" in flags else []


def cache_of(arguments, name, flags):
    return arguments.out / "cache" / "-".join([name, *dtype_of(flags)[1:]])


def selected(arguments, name, seed, folder, extra):
    """Selects into the folder; the seconds of its stages, some of which run twice."""
    config = folder / "select.toml"
    config.write_text(f"[finetune.train]\nepochs = {arguments.epochs}\nmax_length = {arguments.max_length}\n", encoding="utf-8")
    out = folder / "choice"
    run(arguments, "select", *files_of(arguments, name), "--config", config, "--embedder", arguments.model, "--metric", CASES[name][3],
        "--budget", arguments.budget, "--seed", seed, "--threads", 1, "--out", out, "--cache", cache_of(arguments, name, extra), *extra)
    seconds = {}
    for stage in json.loads((out / "selection.json").read_text())["stages"]:
        seconds[stage["name"]] = seconds.get(stage["name"], 0.0) + stage["seconds"]
    return seconds


def of_source(arguments, name, seed, folder):
    """Fine-tunes on random rows of the pool that are of the task's source."""
    field, source = CASES[name][2]
    rows = folder / "source.jsonl"
    of_it = [line for line in lines_of(folder_of(arguments, name) / "train.jsonl") if json.loads(line).get(field) == source]
    rows.write_text("\n".join(of_it) + "\n", encoding="utf-8")
    return fine_tuned(arguments, name, seed, folder, "--sample", arguments.budget,
                      files=["--train", rows, "--validation", folder_of(arguments, name) / "validation.jsonl"])


def alone(arguments, name, seed, folder):
    """Fine-tunes on the validation rows alone."""
    config = folder / "alone.toml"
    config.write_text('data.leaks = "keep"\n', encoding="utf-8")
    rows = folder_of(arguments, name) / "validation.jsonl"
    cell = fine_tuned(arguments, name, seed, folder, "--config", config, epochs=arguments.alone_epochs,
                      files=["--train", rows, "--validation", rows])
    # Biases that were tuned on the rows trained on say nothing.
    return {**cell, "tuned": {}}


def embedding(arguments, name, seed, folder, flags):
    """The seconds of embedding training and validation rows, which fills the cache of ways with such flags."""
    shutil.rmtree(cache_of(arguments, name, flags), ignore_errors=True)
    once = ["--agent", "random", "--max-evaluations", "10", *dtype_of(flags)]
    return {"seconds": selected(arguments, name, seed, folder, once)["embed"]}


def chosen(arguments, name, seed, folder, extra, embed, *too):
    """Selects, then fine-tunes on the choice; its seconds count the embedding, as if there were no cache."""
    stages = selected(arguments, name, seed, folder, extra)
    cell = fine_tuned(arguments, name, seed, folder, "--selection", folder / "choice", *too)
    return {**cell, "seconds": cell["seconds"] + embed + sum(stages.values()) - stages["embed"]}


def ladder(arguments, name):
    """The table of `tamis check proxy`."""
    out = arguments.out / "ladder" / name
    config = arguments.out / "ladder.toml"
    config.write_text(f"[finetune.train]\nepochs = {arguments.epochs}\nmax_length = {arguments.max_length}\n", encoding="utf-8")
    run(arguments, "check", "proxy", *files_of(arguments, name), *test_files_of(arguments, [name, *arguments.also]), "--config", config,
        "--embedder", arguments.model, "--metric", CASES[name][3], "--budget", arguments.budget, "--adapt", "5%", "--states", "3",
        "--target-rows", arguments.judge_rows, "--max-evaluations", "1000", "--doubtful", 0, "--within", "all", "--out", out)
    record = json.loads((out / "check_proxy.json").read_text())
    print(f"### {name}: {len(record['states'])} selections of {record['rows']} rows, the target's {record['metric']} on "
          f"{record['target_rows']} test rows\n")
    print("| reward | scored by | Spearman (95%) | Kendall | regret | s a score, one core |\n|---|---|---|---|---|---|")
    for rung in record["rungs"]:
        rank = rung["agreement"]["spearman"]
        print(f"| {rung['model']} | {rung['metric']} | {rank['value']:.2f} ({rank['low']:.2f} to {rank['high']:.2f}) | "
              f"{rung['agreement']['kendall']['value']:.2f} | {rung['agreement']['regret']['value']:.3f} | {rung['seconds']:.4f} |")
    kinds = {}
    for state in record["states"]:
        kinds.setdefault(state["kind"], []).append(state["target"])
    print("\n| selections | the target's score, mean |\n|---|---|")
    for kind, scores in kinds.items():
        print(f"| {kind} | {statistics.mean(scores):.4f} |")
    print(f"\n{record['verdict']}\n", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--judge-rows", type=int, default=4000)
    parser.add_argument("--validation-rows", type=int, default=4000)
    parser.add_argument("--own", action="store_true",
                        help="beside each line one whose target was trained on the validation rows, too; one on those alone; and, for the "
                             "task of one source, one on as many rows of the pool that are known to be of it")
    parser.add_argument("--alone-epochs", type=int, default=8, help="those of the target that is trained on the validation rows alone")
    parser.add_argument("--budget", default="1000")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--everything-epochs", type=int, help="those of the choice by default; 0 leaves it out")
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--random-seeds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--random-budget", action="append", type=int, default=[], metavar="ROWS",
                        help="also train on so many random rows, and say how many of them each line is worth")
    parser.add_argument("--curve-seeds", type=int, default=2, help="those of each --random-budget")
    parser.add_argument("--way", action="append", metavar="NAME=FLAGS", help="a way to choose, as flags of `tamis select`")
    parser.add_argument("--tamis", type=pathlib.Path, help="the binary; the release build by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many cells run side by side")
    parser.add_argument("--ladder", action="store_true")
    parser.add_argument("--also", action="append", default=[], choices=CASES,
                        help="with --ladder: a case whose test rows judge too")
    arguments = parser.parse_args()
    if arguments.random_budget and not arguments.budget.isdigit():
        parser.error("--random-budget needs a --budget in rows")
    arguments.tamis = arguments.tamis or program()
    arguments.model = arguments.model.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    ways = {way: flags.split() for way, flags in (way.split("=", 1) for way in arguments.way or ["`tamis select`="])}
    path = arguments.out / "cells.json"
    cells = json.loads(path.read_text()) if path.exists() else {}

    lock = threading.Lock()

    def cell(key, make, *more, **named):
        name, _, seed = key.split("/")
        if key not in cells:
            made = make(arguments, name, int(seed), work(arguments, key), *more, **named)
            with lock:
                cells[key] = made
                partial = path.with_suffix(".partial")
                partial.write_text(json.dumps(cells, indent=1))
                os.replace(partial, path)
        return cells[key]

    for name in arguments.case or CASES:
        if arguments.ladder:
            ladder(arguments, name)
            continue
        base = BASES.get(name, name)
        # Written here, before several cells would do it at once.
        for case in {name, *tests_of(base)}:
            folder_of(arguments, case)
        embed = {way: cell(f"{name}/{' '.join(['embedding', *dtype_of(flags)])}/0", embedding, flags)["seconds"]
                 for way, flags in ways.items()}
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            rows = {}
            # The longest begins first.
            epochs = arguments.epochs if arguments.everything_epochs is None else arguments.everything_epochs
            if epochs:
                rows["everything"] = [pool.submit(cell, f"{base}/everything, {epochs} epochs/0", fine_tuned, epochs=epochs)]
            rows["random rows"] = [pool.submit(cell, f"{base}/random/{seed}", fine_tuned, "--sample", arguments.budget)
                                   for seed in range(arguments.random_seeds)]
            for budget in sorted(arguments.random_budget, reverse=True):
                rows[f"{budget} random rows"] = [pool.submit(cell, f"{base}/random, {budget}/{seed}", fine_tuned, "--sample", budget)
                                                 for seed in range(arguments.curve_seeds)]
            for way, flags in ways.items():
                rows[way] = [pool.submit(cell, f"{name}/{way}/{seed}", chosen, flags, embed[way]) for seed in range(arguments.seeds)]
            if arguments.own:
                too = "--with-validation"
                if epochs:
                    rows["everything and validation rows"] = [
                        pool.submit(cell, f"{name}/everything and validation, {epochs} epochs/0", fine_tuned, too, epochs=epochs)]
                rows["validation rows alone"] = [pool.submit(cell, f"{name}/alone, {arguments.alone_epochs} epochs/{seed}", alone)
                                                 for seed in range(arguments.seeds)]
                if CASES[name][2]:
                    rows["rows of the source"] = [pool.submit(cell, f"{name}/source/{seed}", of_source)
                                                  for seed in range(arguments.seeds)]
                rows["random rows and validation rows"] = [
                    pool.submit(cell, f"{name}/random and validation/{seed}", fine_tuned, "--sample", arguments.budget, too)
                    for seed in range(arguments.seeds)]
                for way, flags in ways.items():
                    rows[f"{way} and validation rows"] = [
                        pool.submit(cell, f"{name}/{way} and validation/{seed}", chosen, flags, embed[way], too)
                        for seed in range(arguments.seeds)]
            rows = {label: [entry.result() for entry in entries] for label, entries in rows.items()}
        for test in tests_of(name):
            table(arguments, name, test, rows)


def table(arguments, name, test, rows):
    """The scores on the test rows of one case, and the seconds."""
    print(f"### {name}, {CASES[name][3]} on the test rows of {test}, {arguments.budget} of {arguments.rows} rows\n")
    print("| trained on | test | above random rows | label biases tuned | above random rows | core-seconds in all |\n|---|---|---|---|---|---|")

    def scores_of(entries, kind):
        return [entry.get(kind, {}).get(test) for entry in entries]

    for label, entries in rows.items():
        columns = []
        for kind in ["scores", "tuned"]:
            scores, random_rows = scores_of(entries, kind), scores_of(rows["random rows"], kind)
            columns += two_columns(scores, random_rows, label) if None not in scores + random_rows else ["", ""]
        print(f"| {label} | {' | '.join(columns)} | {statistics.mean(e['seconds'] for e in entries):.0f} |")
    if arguments.random_budget:
        print()
        worth(arguments, test, rows)
    print(flush=True)


def worth(arguments, test, rows):
    """How many random rows teach the target as much as each line does: the fewest, on lines between the means over the logarithm of
    the number of rows."""
    mean = {label: statistics.mean(entry["scores"][test] for entry in entries) for label, entries in rows.items()}
    curve = [(int(arguments.budget), mean.pop("random rows")),
             *((budget, mean.pop(f"{budget} random rows")) for budget in sorted(arguments.random_budget))]
    if "everything" in mean:
        curve.append((arguments.rows, mean.pop("everything")))
    for label, score in mean.items():
        print(f"{label}: {rows_worth(curve, score)}")


def rows_worth(curve, score):
    """A score as a number of random rows; `curve` has numbers of rows, ascending, each with its score."""
    if score <= curve[0][1]:
        return f"no more than {curve[0][0]} random rows"
    for (fewer, low), (more, high) in zip(curve, curve[1:]):
        if score <= high:
            share = (score - low) / (high - low)
            return f"about {math.exp(math.log(fewer) + share * math.log(more / fewer)):.0f} random rows"
    return f"more than {curve[-1][0]} random rows"


def two_columns(scores, random_rows, label):
    """A line's mean and spread, and its difference to random rows, in their standard deviations, too."""
    sd = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    gain = statistics.mean(scores) - statistics.mean(random_rows)
    spread = statistics.stdev(random_rows) if len(random_rows) > 1 else 0.0
    above = f"{gain:+.4f}" + (f" ({gain / spread:+.1f} sd)" if spread and label != "random rows" else "")
    return [f"{statistics.mean(scores):.4f}{sd}", above]


if __name__ == "__main__":
    main()
