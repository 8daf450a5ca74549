#!/usr/bin/env python3
"""Changes one setting of an agent at a time and prints the tables behind its defaults, in docs/algorithms/.

    cargo build --release
    python3 benches/sweep.py --data <folder of data sets> --minilm <folder of all-MiniLM-L6-v2> --out runs/sweep [--agent ppo ...]

Scores are those of the reward fold, which the agent is rewarded with, and of the confirm fold, which names the choice: no test row has a part
in a default. 20,000 training rows of each set, 5%, 1,000 evaluations. Each run has a folder of its own under --out: a second start goes
on where the first ended. Standard library only.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import statistics
import subprocess

from built import program
from results import spread
from studies import CASES, cut

SETS = ["hate_merged", "app_reviews_stars"]
# The paper's DQN, but for its network.
PLAIN = "dqn.lookahead = 0\ndqn.split = false\n"
# what is swept: (flags of `tamis select`, {setting, perhaps behind others that change with it: values other than the default})
SWEEPS = {
    "dqn": (["--agent", "dqn"], {
        "dqn.lookahead": [0],
        "dqn.lookahead = 0\ndqn.split": ["false"],
        f"{PLAIN}dqn.calibrate": ["false"],
        f"{PLAIN}dqn.exploration_initial_eps": [0.5],
        f"{PLAIN}dqn.gradient_steps": [4],
    }),
    "ppo": (["--agent", "ppo"], {
        "ppo.hidden": [16, 64],
        "ppo.learning_rate": [0.001, 0.01],
        "ppo.episodes": [8, 32],
        "ppo.n_epochs": [1, 10],
        "ppo.batch_size": [64, 256],
        "ppo.clip_range": [0.1, 0.3],
        "ppo.gae_lambda": [0.8, 1.0],
        "ppo.vf_coef": [0.25, 1.0],
        "ppo.ent_coef": [0.0, 0.01],
        "ppo.target_kl": [0.01, 0.1],
    }),
    "climb-disc": (["--agent", "climb-disc"], {
        "climb_disc.rounds": [[1, 1, 1], [16, 32, 64], [64, 32, 16, 8, 4]],
        "climb_disc.candidates": [4, 64],
        "climb_disc.mutated": [0.0, 0.9],
        "climb_disc.top": [1, 4],
        "climb_disc.trees.learning_rate": [0.03, 0.1],
        "climb_disc.trees.depth": [2, 6],
        "climb_disc.trees.l1": [0.0],
        "climb_disc.trees.l2": [0.0, 10.0],
        "climb_disc.trees.min_leaf": [1, 20],
        "climb_disc.trees.patience": [10, 200],
    }),
    "climb-disc as reward model of dqn": (["--agent", "dqn", "--reward-model", "climb-disc"], {
        "climb_disc.share": [0.25, 0.75],
        "climb_disc.imagined": [5000, 80000],
    }),
}


def selection(arguments, name, folder, flags, seed, config):
    out = arguments.out / "runs" / name / folder / str(seed)
    if not (out / "selection.json").exists():
        train, validation, _ = cut(arguments, name, 20000)
        settings = arguments.out / "runs" / name / f"{folder}.toml"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(config, encoding="utf-8")
        command = [program(), "select", "--train", train, "--validation", validation, "--metric", CASES[name][2], "--embedder", arguments.minilm,
                   "--budget", "5%", "--max-evaluations", "1000", "--doubtful", 0, "--within", "all", "--config", settings, "--seed", seed, "--threads", 1,
                   "--cache", arguments.out / "cache", "--out", out, *flags]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return json.loads((out / "selection.json").read_text(encoding="utf-8"))


def cells(records):
    """Reward fold, confirm fold, seconds of the search."""
    scores = [[record["scores"][fold]["chosen"] for record in records] for fold in ["reward", "confirm"]]
    seconds = statistics.mean(stage["seconds"] for record in records for stage in record["stages"] if stage["name"] == "select")
    return " | ".join([*map(spread, scores), f"{seconds:.1f}"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--minilm", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/sweep"))
    parser.add_argument("--agent", action="append", choices=SWEEPS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many runs go side by side, one core each")
    arguments = parser.parse_args()
    arguments.judge_rows = 4000
    for name in SETS:
        # The first run fills the cache of embeddings, which several would do at once.
        selection(arguments, name, "embedding", ["--agent", "random"], 0, "")
    for agent in arguments.agent or SWEEPS:
        flags, sweep = SWEEPS[agent]
        values = [("as it is", "", "")]
        for setting, others in sweep.items():
            values += [(setting, value, f"{setting} = {value}\n") for value in others]
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            go = lambda name, setting, value, config, seed: pool.submit(
                selection, arguments, name, re.sub(r"\W+", "_", f"{agent} {setting} {value}"), flags, seed, config)
            runs = [[[go(name, *line, seed) for seed in range(arguments.seeds)] for name in SETS] for line in values]
            print(f"#### {agent}\n\n| setting | value | " + " | ".join(f"{name}, reward fold | confirm | s" for name in SETS) + " |")
            print("|---|---|" + "---|" * 3 * len(SETS))
            for (setting, value, config), of_sets in zip(values, runs):
                columns = " | ".join(cells([run.result() for run in of_set]) for of_set in of_sets)
                name = ", ".join(f"`{line.split('.', 1)[1]}`" for line in setting.split("\n")) if config else setting
                print(f"| {name} | {value} | {columns} |", flush=True)
        print()


if __name__ == "__main__":
    main()
