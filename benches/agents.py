#!/usr/bin/env python3
"""Compares all agents at equal numbers of evaluations on real data, and prints the tables of docs/results.md.

    cargo build --release
    python3 benches/agents.py --data <folder of data sets> --model <folder of all-MiniLM-L6-v2> --out runs/agents

Each set is cut to a seeded sample of --rows training rows; validation and test rows are all there. Runs are made one thread each,
as many side by side as there are cores: `search` is seconds of one core. What is finished is kept in <out>/cells.json; a second start goes on from there.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess

from built import program

SETS = {"app_reviews_stars": "accuracy", "hate_merged": "macro-f1"}
AGENTS = ["dqn", "dyna-dqn", "ppo", "climb-disc", "greedy", "local-search", "bandit", "random"]


def cut(arguments, name):
    train = arguments.out / f"{name}-{arguments.rows}.jsonl"
    if not train.exists():
        with open(arguments.data / name / "train.jsonl", encoding="utf-8") as file:
            lines = [line for line in file if line.strip()]
        chosen = sorted(random.Random(0).sample(range(len(lines)), min(arguments.rows, len(lines))))
        partial = train.with_suffix(".partial")
        partial.write_text("".join(lines[i] for i in chosen), encoding="utf-8")
        os.replace(partial, train)
    rest = (part for split in ["validation", "test"] for part in [f"--{split}", arguments.data / name / f"{split}.jsonl"])
    return ["--train", train, *rest]


def select(arguments, name, agent, evaluations, seed):
    out = arguments.out / f"{name}-{agent}-{evaluations}-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    command = [arguments.tamis, "select", *cut(arguments, name), "--order", "random", "--embedder", arguments.model, "--metric", SETS[name],
               "--budget", arguments.budget, "--agent", agent, "--max-evaluations", evaluations, "--seed", seed,
               "--threads", 1, "--cache", arguments.out / "cache", "--out", out]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    record = json.loads((out / "selection.json").read_text(encoding="utf-8"))
    shutil.rmtree(out)
    search = next(stage["seconds"] for stage in record["stages"] if stage["name"] == "select")
    test = record["scores"]["test"]
    return {
        **{fold: record["scores"][fold]["chosen"] for fold in ["reward", "confirm", "test"]},
        "random": test["random_mean"], "random_sd": test["random_sd"], "everything": test["everything"],
        "evaluations": record["evaluations"], "seconds": search,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/agents"))
    parser.add_argument("--set", dest="sets", action="append", choices=SETS)
    parser.add_argument("--agent", dest="agents", action="append", choices=AGENTS)
    parser.add_argument("--evaluations", type=int, action="append")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--budget", default="5%")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--tamis", type=pathlib.Path, help="the binary; the release build by default")
    arguments = parser.parse_args()
    arguments.tamis = (arguments.tamis or program()).resolve()
    arguments.model = arguments.model.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    kept = arguments.out / "cells.json"
    cells = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    budgets, agents = arguments.evaluations or [1000, 5000, 20_000], arguments.agents or AGENTS

    for name in arguments.sets or SETS:
        # Embeds once, before the others look for the embeddings.
        select(arguments, name, "random", 100, 0)
        asked = [(agent, evaluations, seed) for evaluations in budgets for seed in range(arguments.seeds) for agent in agents]
        key = lambda agent, evaluations, seed: f"{name}/{agent}/{evaluations}/{seed}"
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            waiting = {pool.submit(select, arguments, name, *cell): key(*cell) for cell in asked if key(*cell) not in cells}
            for done in concurrent.futures.as_completed(waiting):
                cells[waiting[done]] = done.result()
                partial = kept.with_suffix(".partial")
                partial.write_text(json.dumps(cells, indent=1), encoding="utf-8")
                os.replace(partial, kept)
        for evaluations in budgets:
            print(f"### {name}, {SETS[name]}, {arguments.budget} of {arguments.rows} rows, {evaluations} evaluations\n")
            print("| agent | reward fold | confirm | test | above random rows | search, s |\n|---|---|---|---|---|---|")
            for agent in agents:
                found = [cells[key(agent, evaluations, seed)] for seed in range(arguments.seeds)]
                column = lambda field: [cell[field] for cell in found]
                spread = lambda values: statistics.stdev(values) if len(values) > 1 else 0.0
                scores = " | ".join(f"{statistics.mean(column(fold)):.4f} ± {spread(column(fold)):.4f}"
                                    for fold in ["reward", "confirm", "test"])
                above = statistics.mean(cell["test"] - cell["random"] for cell in found)
                sds = statistics.mean(column("random_sd"))
                print(f"| {agent} | {scores} | {above:+.4f} ({above / sds:+.1f} sd) | {statistics.mean(column('seconds')):.0f} |")
            print(flush=True)


if __name__ == "__main__":
    main()
