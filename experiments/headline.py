#!/usr/bin/env python3
"""Fine-tunes the target on everything, on random rows and on what tamis selects, and compares.

Measures  the fine-tuned target's test scores, and the core-seconds of each way from files to target.
Needs     the data sets, all-MiniLM-L6-v2, the release build.
Prints    the tables of docs/results/headline.md and docs/results/targeted.md.

    cargo build --release
    python3 experiments/headline.py --data DATA --model MINILM [--case edos2023 sick] [--way 'int8=--embed-dtype int8']

A case is a pool of at most --rows training rows and the validation and test rows of one task. Cases of one pool share
the targets that were trained on random rows and on everything. A second start goes on from the first. targeted.py adds
lines that train on the task's own rows.
"""

import math
import statistics

import lib
import target

CASES = [
    "app_reviews_stars", "hate_merged", "nli_merged", "edos2023", "hateval2019_en", "davidson2017", "anli", "sick",
    "lingnli", "snli_counterfactual", "questions", "mmlu", "threads", "netflix",
]


def worth(options, test, lines):
    """How many random rows teach the target as much as each line does: the fewest, on lines between the means over the
    logarithm of the number of rows."""
    mean = {label: statistics.mean(cell["scores"][test.name] for cell in cells) for label, cells in lines.items()}
    curve = [(int(options.budget), mean.pop("random rows")),
             *((budget, mean.pop(f"{budget} random rows")) for budget in sorted(options.random_budget))]
    if "everything" in mean:
        curve.append((options.rows, mean.pop("everything")))
    for label, score in mean.items():
        print(f"{label}: {rows_worth(curve, score)}")
    print()


def rows_worth(curve, score):
    """A score as a number of random rows; `curve` has numbers of rows, ascending, each with its score."""
    if score <= curve[0][1]:
        return f"no more than {curve[0][0]} random rows"
    for (fewer, low), (more, high) in zip(curve, curve[1:]):
        if score <= high:
            share = (score - low) / (high - low)
            return f"about {math.exp(math.log(fewer) + share * math.log(more / fewer)):.0f} random rows"
    return f"more than {curve[-1][0]} random rows"


def main():
    parser = lib.parser(__doc__, "headline", CASES)
    target.add_options(parser)
    parser.add_argument("--random-budget", action="append", type=int, default=[], metavar="ROWS",
                        help="also train on so many random rows, and say how many of them each line is worth")
    parser.add_argument("--curve-seeds", type=int, default=2, help="those of each --random-budget")
    options = parser.parse_args()
    if options.random_budget and not options.budget.isdigit():
        parser.error("--random-budget needs a --budget in rows")
    runner = lib.Runner(options)
    for name in options.case or CASES:
        own, pool, ways = target.prepare(lib.cases()[name], options, runner)
        lines = target.measure(target.common_lines(own, pool, ways, options.random_budget, options.curve_seeds), options)
        for test in [] if options.print else own.tests:
            target.show(own.case, test, lines, options)
            if options.random_budget:
                worth(options, test, lines)


if __name__ == "__main__":
    main()
