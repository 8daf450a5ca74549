#!/usr/bin/env python3
"""Asks whether the task's own labelled rows would do without a selection.

Measures  beside the lines of headline.py: a target trained on the validation rows alone; random rows, each selection
          and everything with the validation rows; and, for the task of one source, as many random rows of the pool that
          are known to be of that source.
Needs     the data sets, all-MiniLM-L6-v2, the release build.
Prints    the table of the task's own rows in docs/guide/faq.md.

    cargo build --release
    python3 experiments/targeted.py --data DATA --model MINILM --validation-rows 500 --seeds 2 --random-seeds 3

It shares what is finished with headline.py where --out is the same.
"""

import dataclasses
import functools
import json

import lib
import target

CASES = ["edos2023", "hateval2019_en", "davidson2017", "threads"]


def alone(own, seed, epochs):
    """One cell: trains on the validation rows alone."""
    files = dataclasses.replace(own.files, train=own.files.validation)
    cell = own.finetune(seed, "--leaks", "keep", files=files, epochs=epochs)
    # Label biases that were tuned on the rows trained on say nothing.
    return cell and {**cell, "tuned": {}}


def of_source(own):
    """The pool's rows that are of the task's source, beside the validation rows."""
    path = own.files.train[0].with_name("train-of-source.jsonl")
    wanted = dict(own.case.only).items()
    lib.write_lines(path, [line for line in lib.lines_of(own.files.train[0]) if wanted <= json.loads(line).items()])
    return dataclasses.replace(own.files, train=[path])


def own_lines(own, ways, options):
    call, seeds, too = functools.partial, range(options.seeds), "--with-validation"
    sample, lines = ["--sample", options.budget], {}
    if epochs := target.everything_epochs(options):
        lines["everything and validation rows"] = [call(own.finetune, 0, too, epochs=epochs)]
    lines["validation rows alone"] = [call(alone, own, seed, options.alone_epochs) for seed in seeds]
    if own.case.only:
        files = of_source(own)
        lines["rows of the source"] = [call(own.finetune, seed, *sample, files=files) for seed in seeds]
    lines["random rows and validation rows"] = [call(own.finetune, seed, *sample, too) for seed in seeds]
    for name, (flags, seconds) in ways.items():
        lines[f"{name} and validation rows"] = [call(own.selected, seed, flags, seconds, too) for seed in seeds]
    return lines


def main():
    parser = lib.parser(__doc__, "targeted", CASES)
    target.add_options(parser)
    parser.add_argument("--alone-epochs", type=int, default=8, help="those of the target trained on the validation rows alone")
    options = parser.parse_args()
    runner = lib.Runner(options)
    for name in options.case or CASES:
        own, pool, ways = target.prepare(lib.cases()[name], options, runner)
        lines = target.measure(target.common_lines(own, pool, ways) | own_lines(own, ways, options), options)
        for test in [] if options.print else own.tests:
            target.show(own.case, test, lines, options)


if __name__ == "__main__":
    main()
