#!/usr/bin/env python3
"""Compares the agent `auto` with every method that it could have been: rules, and searches in the mode of the AUC.

Measures  the probe's test scores of each method's choices over cases, budgets and vectors; how much of a gain on the
          reward's side is left on test rows.
Needs     the data sets, all-MiniLM-L6-v2, the release build.
Prints    the tables of docs/results/portfolio.md.

    cargo build --release
    python3 experiments/portfolio.py --data DATA --model MINILM [--case emotions ...] [--vectors minilm lexical]

Pools are cut to --rows rows, validation and test files to --eval-rows. Studies go on where they ended.
"""

import math
import statistics

import lib

CASES = ["banking77", "app_reviews_stars", "nli_merged", "hate_merged", "mmlu_aux", "edos2023", "hateval2019_en",
         "davidson2017", "sick", "snli_counterfactual", "lingnli", "threads", "netflix"]
RULES = ["stratified", "frequency", "similarity", "relevance", "facility-location"]
SEARCHES = ["local-search", "climb-disc", "dqn"]
AUTO = "auto"
CONFIRM, TEST = 0, 1


def study(case, vectors, options, runner):
    """The scores of each budget and method by seed, {(budget, method): {seed: [confirm, test]}}; none of printed commands."""
    files = lib.cut(case, options, options.rows, options.eval_rows, options.eval_rows)
    embedder = [] if vectors == "lexical" else ["--embedder", options.model, "--embed-dtype", "int8"]
    record = runner.resume(
        options.out / vectors / case.name, "study", *files.flags("train", "validation", "test"), *files.extra, "--metric", case.metric, *embedder,
        "--cache", options.out / "cache", "--seeds", options.seeds, "--budgets", ",".join(options.budgets),
        "--max-evaluations", options.max_evaluations, "--methods", ",".join(["random", *RULES, *SEARCHES, AUTO]),
        record="study.json", statuses=(0, 1),
    ).record
    scores = {}
    for cell in record["cells"] if record else []:
        if cell["draws"]:
            means = [statistics.mean(draw[column] for draw in cell["draws"]) for column in [CONFIRM, TEST]]
            scores.setdefault((cell["budget"], cell["method"]), {})[cell["seed"]] = means
    return scores


def mean(scores, budget, method, column=TEST):
    return statistics.mean(score[column] for score in scores[budget, method].values())


def difference(scores, budget, method, other):
    """Of the test scores, paired by seed, with its standard error."""
    of, others = scores[budget, method], scores[budget, other]
    pairs = [of[seed][TEST] - others[seed][TEST] for seed in of if seed in others]
    error = statistics.stdev(pairs) / math.sqrt(len(pairs)) if len(pairs) > 1 else 0.0
    return statistics.mean(pairs), error


def line(name, scores, budget):
    """A line of the table: `auto` beside random rows, the best rule and the best search by the test scores themselves."""
    best = lambda methods: max(methods, key=lambda method: mean(scores, budget, method))
    rule, search = best(RULES), best(SEARCHES)
    gap, error = difference(scores, budget, AUTO, best(["random", *RULES, *SEARCHES]))
    shown = lambda method: f"{mean(scores, budget, method):.3f}"
    cells = [name, budget, shown("random"), f"{shown(rule)} {rule}", f"{shown(search)} {search}", shown(AUTO)]
    return [*cells, f"{gap:+.3f} ± {error:.3f}"], gap, error


def curse(studies, budget, method):
    """How much of the gain over random rows on the confirm fold, which made the choice, is there on test rows: means over cases."""
    gain = lambda scores, column: mean(scores, budget, method, column) - mean(scores, budget, "random", column)
    confirm, test = (statistics.mean(gain(scores, column) for scores in studies) for column in [CONFIRM, TEST])
    return [method, budget, f"{confirm:+.4f}", f"{test:+.4f}"]


def winners(studies, budget):
    """In how many cells the method that wins on the confirm fold is above random rows on test rows, and in how many it wins there too."""
    above = wins = cells = 0
    methods = ["random", *RULES, *SEARCHES, AUTO]
    for scores in studies:
        for seed in scores[budget, "random"]:
            there = [method for method in methods if seed in scores[budget, method]]
            of = lambda method, column: scores[budget, method][seed][column]
            winner = max(there, key=lambda method: of(method, CONFIRM))
            cells += 1
            above += of(winner, TEST) >= of("random", TEST)
            wins += of(winner, TEST) == max(of(method, TEST) for method in there)
    return [budget, cells, f"{above / cells:.0%}", f"{wins / cells:.0%}"]


def main():
    parser = lib.parser(__doc__, "portfolio", CASES)
    parser.add_argument("--vectors", nargs="+", choices=["minilm", "lexical"], default=["minilm", "lexical"])
    parser.add_argument("--budgets", nargs="+", default=["1%", "5%"])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--eval-rows", type=int, default=4_000)
    parser.add_argument("--max-evaluations", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0")
    options = parser.parse_args()
    runner = lib.Runner(options)
    for vectors in options.vectors:
        studies = {name: study(lib.cases()[name], vectors, options, runner) for name in options.case or CASES}
        if options.print:
            continue
        lines, gaps = [], []
        for name, scores in studies.items():
            for budget in options.budgets:
                cells, gap, error = line(name, scores, budget)
                lines.append(cells)
                gaps.append((gap, error))
        print(f"#### {vectors}\n")
        header = ["case", "budget", "random", "best rule", "best search", "auto", "auto less the best of them"]
        print(lib.table(header, lines) + "\n")
        low = sum(gap < -error for gap, error in gaps)
        print(f"Of {len(gaps)} lines {sum(gap >= 0 for gap, _ in gaps)} at or above the best, {low} more than a standard error below; "
              f"mean difference {statistics.mean(gap for gap, _ in gaps):+.4f}.\n")
        of = list(studies.values())
        print(lib.table(["method", "budget", "above random, confirm fold", "above random, test"],
                        [curse(of, budget, method) for budget in options.budgets for method in [*SEARCHES, AUTO]]) + "\n")
        print(lib.table(["budget", "cells", "the confirm fold's winner is not below random rows on test", "and is best there"],
                        [winners(of, budget) for budget in options.budgets]) + "\n", flush=True)


if __name__ == "__main__":
    main()
