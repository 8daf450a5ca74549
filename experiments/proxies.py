#!/usr/bin/env python3
"""Asks how well each way to score a selection ranks selections as the fine-tuned target does.

Measures  `tamis check proxy`: rank agreement with the target's test scores, and seconds a score.
Needs     the data sets, all-MiniLM-L6-v2, the release build.
Prints    the tables of docs/results/proxies.md.

    cargo build --release
    python3 experiments/proxies.py --data DATA --model MINILM --case hate_merged --budget 500
    python3 experiments/proxies.py --data DATA --model MINILM --case nli_merged --also anli --budget 500

A second start goes on where the first ended.
"""

import statistics

import lib

CASES = ["hate_merged", "app_reviews_stars", "nli_merged"]


def check(case, options, runner):
    cut = lambda case: lib.cut(case, options, options.rows, options.validation_rows, options.eval_rows)
    files, also = cut(case), [cut(lib.cases()[name]) for name in options.also]
    config = runner.config(f"[finetune.train]\nepochs = {options.epochs}\nmax_length = {options.max_length}\n")
    return runner.resume(
        options.out / "checks" / case.name, "check", "proxy", *files.flags("train", "validation", "test"),
        *(path for more in also for path in more.test), *config, "--embedder", options.model, "--metric", case.metric,
        "--budget", options.budget, "--finetune-features", "5%", "--selections", 3, "--target-rows", options.eval_rows,
        "--max-evaluations", 1000, "--label-error-share", 0, "--candidates", "all", record="check_proxy.json",
    ).record


def show(case, record):
    print(f"### {case.name}: {len(record['selections'])} selections of {record['rows']} rows, the target's {record['metric']} on "
          f"{record['target_rows']} test rows\n")
    rows = []
    for scorer in record["rewards"]:
        agreement = scorer["agreement"]
        rank = agreement["spearman"]
        rows.append([scorer["model"], scorer["metric"], f"{rank['value']:.2f} ({rank['low']:.2f} to {rank['high']:.2f})",
                     f"{agreement['kendall']['value']:.2f}", f"{agreement['regret']['value']:.3f}", f"{scorer['seconds']:.4f}"])
    header = ["reward", "scored by", "Spearman (95%)", "Kendall", "regret", "s a score, one core"]
    print(lib.table(header, rows) + "\n")
    kinds = {}
    for selection in record["selections"]:
        kinds.setdefault(selection["kind"], []).append(selection["target"])
    rows = [[kind, f"{statistics.mean(scores):.4f}"] for kind, scores in kinds.items()]
    print(lib.table(["selections", "the target's score, mean"], rows))
    print(f"\n{record['verdict']}\n", flush=True)


def main():
    parser = lib.parser(__doc__, "proxies", CASES)
    parser.add_argument("--also", nargs="+", action="extend", default=[], choices=lib.cases(), metavar="CASE",
                        help="a case whose test rows judge too")
    parser.add_argument("--rows", type=int, default=20_000, help="of the pool, at most")
    parser.add_argument("--validation-rows", type=int, default=4000)
    parser.add_argument("--eval-rows", type=int, default=4000, help="test rows, at most")
    parser.add_argument("--budget", default="1000")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=64)
    options = parser.parse_args()
    runner = lib.Runner(options)
    for name in options.case or CASES:
        case = lib.cases()[name]
        record = check(case, options, runner)
        if record:
            show(case, record)


if __name__ == "__main__":
    main()
