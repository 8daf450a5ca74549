#!/usr/bin/env python3
"""Changes one setting of an agent at a time: the tables behind its defaults.

Measures  the choice's score on the reward fold, which the agent is rewarded with, and on the confirm fold, which names
          the choice: no test row has a part in a default. 20,000 training rows of each set, 5%, 1,000 evaluations.
Needs     the data sets, all-MiniLM-L6-v2, the release build.
Prints    the tables of settings in docs/lab: 2026-11-dqn-ablation.md, -ppo-sweep.md, -climb-disc.md.

    cargo build --release
    python3 experiments/sweep.py --data DATA --model MINILM [--agent ppo ...]

A second start goes on from the first.
"""

import functools
import os
import statistics

import lib

CASES = ["hate_merged", "app_reviews_stars"]
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


def select(case, options, runner, flags, config, seed):
    files = lib.cut(case, options, 20_000, 4000, 4000)
    return runner.run(
        "select", *files.flags("train", "validation"), "--metric", case.metric, "--embedder", options.model, "--budget", "5%",
        "--max-evaluations", 1000, "--label-error-share", 0, "--candidates", "all", *runner.config(config), "--seed", seed,
        "--threads", 1, "--cache", options.out / "cache", *flags, record="selection.json",
    ).record


def columns(records):
    """Reward fold, confirm fold, seconds of the search."""
    scores = [[record["scores"][fold]["chosen"] for record in records] for fold in ["reward", "confirm"]]
    seconds = statistics.mean(stage["seconds"] for record in records for stage in record["stages"] if stage["name"] == "select")
    return [*map(lib.mean_sd, scores), f"{seconds:.1f}"]


def variants(sweep):
    """The lines of a table: the setting's name, its value, and the settings file."""
    yield "as it is", "", ""
    for setting, values in sweep.items():
        name = ", ".join(f"`{line.split('.', 1)[1]}`" for line in setting.split("\n"))
        yield from ((name, value, f"{setting} = {value}\n") for value in values)


def main():
    parser = lib.parser(__doc__, "sweep")
    parser.add_argument("--agent", nargs="+", action="extend", choices=SWEEPS, metavar="AGENT", default=[],
                        help=f"{', '.join(SWEEPS)}; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many runs go side by side, one core each")
    options = parser.parse_args()
    runner, cases = lib.Runner(options), [lib.cases()[name] for name in CASES]
    for case in cases:
        # The first run fills the cache of embeddings, which several would do at once.
        select(case, options, runner, ["--agent", "random"], "", 0)
    for agent in options.agent or SWEEPS:
        flags, sweep = SWEEPS[agent]
        lines = list(variants(sweep))
        calls = [functools.partial(select, case, options, runner, flags, config, seed)
                 for _, _, config in lines for case in cases for seed in range(options.seeds)]
        records = iter(lib.parallel(calls, lib.jobs_of(options)))
        if options.print:
            continue
        rows = [[name, value, *(cell for _ in cases for cell in columns([next(records) for _ in range(options.seeds)]))]
                for name, value, _ in lines]
        header = ["setting", "value", *(head for case in cases for head in [f"{case.name}, reward fold", "confirm", "s"])]
        print(f"#### {agent}\n\n{lib.table(header, rows)}\n", flush=True)


if __name__ == "__main__":
    main()
