#!/usr/bin/env python3
"""Runs `tamis select` over data sets, embedders, agents and seeds.

Measures  the probe's scores of the choice on the reward fold, the confirm fold and the test rows; no target is fine-tuned.
Needs     the data sets, all-MiniLM-L6-v2, the release build.
Prints    the tables of docs/lab/2026-11-random-order.md.

    cargo build --release
    python3 experiments/results.py --data DATA --model MINILM [--only WORD]

A second start goes on from the first. Runs have one core each, as many side by side as there are cores: faster than one
after the other on all cores, with the same results.
"""

import functools
import os
import statistics

import lib

SEEDS = range(5)
AGENTS = [(agent, ["--agent", agent]) for agent in ["dqn", "greedy", "random"]]
WHOLE_CLUSTERS = ("dqn, whole clusters", ["--agent", "dqn", "--chunk", "cluster"])
# Case, title, budget.
TABLES = [
    ("hate_merged", "hate_merged", "5%"),
    ("app_reviews_stars", "app_reviews_stars", "5%"),
    ("edos2023", "targeted: edos2023 from all of hate_merged", "1000"),
]
HEADER = ["", "reward fold (soft)", "confirm", "test", "above random rows on test", "evaluations", "search, s on one core"]
FOLDS = ["reward", "confirm", "test"]


def row(label, records):
    scores = [[record["scores"][fold]["chosen"] for record in records] for fold in FOLDS]
    test = [record["scores"]["test"] for record in records]
    above = statistics.mean(fold["chosen"] - fold["random_mean"] for fold in test)
    evaluations = statistics.mean(record["evaluations"] for record in records)
    seconds = statistics.mean(sum(s["seconds"] for s in record["stages"] if s["name"] == "select") for record in records)
    return [label, *map(lib.mean_sd, scores), lib.gain(above, statistics.mean(fold["random_sd"] for fold in test)),
            f"{evaluations:.0f}", f"{seconds:.1f}"]


def control(label, key, records):
    return [label, *(lib.mean_sd([record["scores"][fold][key] for record in records]) for fold in FOLDS), "", "", ""]


def select(runner, case, files, flags, seed):
    return runner.run(
        "select", *files.flags("train", "validation", "test"), "--metric", case.metric, "--cache", runner.out / "cache",
        "--threads", 1, "--row-order", "random", "--candidates", "all", "--label-error-share", 0, "--reward", "soft", *flags,
        "--seed", seed, record="selection.json",
    ).record


def main():
    parser = lib.parser(__doc__, "results")
    parser.add_argument("--only", default="", metavar="WORD", help="the tables whose titles hold it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many runs go side by side, one core each")
    options = parser.parse_args()
    runner = lib.Runner(options)
    for name, what, budget in TABLES:
        case = lib.cases()[name]
        files = lib.whole(case, options)
        for embedder, path in [("MiniLM", options.model), ("lexical", "lexical")]:
            title = f"{what}, {embedder}, {budget if '%' in budget else budget + ' rows'}"
            if options.only not in title:
                continue
            variants = AGENTS + ([WHOLE_CLUSTERS] if embedder == "MiniLM" and not case.only else [])
            rows = []
            for label, flags in variants:
                flags = ["--embedder", path, "--budget", budget, *flags]
                calls = [functools.partial(select, runner, case, files, flags, seed) for seed in SEEDS]
                records = lib.parallel(calls, lib.jobs_of(options))
                rows += [] if options.print else [row(label, records)]
            if rows:
                rows.append(control("random rows (mean of 10 draws)", "random_mean", records))
                rows.append(control("everything", "everything", records))
                print(f"### {title}\n\n{lib.table(HEADER, rows)}\n", flush=True)


if __name__ == "__main__":
    main()
