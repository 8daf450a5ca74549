"""The fine-tuned target: what headline.py and targeted.py measure, and their tables. Not a script.

Every line of a table is a list of cells, one a seed, that run side by side, each on one core. A cell is the target's
scores on the test rows of all cases that share the pool, the same with label biases tuned on validation rows, and
seconds that count everything a user waits for: embedding, clustering, search, fine-tune.
"""

import functools
import os
import shlex
import statistics

import lib


def add_options(parser):
    parser.add_argument("--rows", type=int, default=20_000, help="of the pool, at most")
    parser.add_argument("--validation-rows", type=int, default=4000)
    parser.add_argument("--eval-rows", type=int, default=4000, help="test rows, at most")
    parser.add_argument("--budget", default="1000")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--everything-epochs", type=int, help="--epochs by default; 0 leaves it out")
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--target", metavar="FLAGS", help="the model that is fine-tuned, as flags of `tamis finetune`: "
                        "--model and its settings; by default the model that embeds")
    parser.add_argument("--seeds", type=int, default=3, help="of a selection")
    parser.add_argument("--random-seeds", type=int, default=5, help="of random rows")
    parser.add_argument("--way", action="append", metavar="NAME=FLAGS",
                        help="a way to select, as flags of `tamis select`; can be repeated; the defaults if none is given")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many cells run side by side")


def settings(options, runner):
    """The settings file with which `select` fine-tunes as `finetune` does here."""
    return runner.config(f"[finetune.train]\nepochs = {options.epochs}\nmax_length = {options.max_length}\n")


def dtype_of(flags):
    """The flag that says in which numbers texts are embedded, with its value, or nothing."""
    return flags[flags.index("--embed-dtype"):][:2] if "--embed-dtype" in flags else []


class Target:
    """Fine-tunes the target on rows of one case's pool."""

    def __init__(self, case, options, runner):
        self.case, self.options, self.runner = case, options, runner
        self.tests = lib.scored_with(case)
        self.files = self.cut(case)

    def cut(self, case):
        options = self.options
        return lib.cut(case, options, options.rows, options.validation_rows, options.eval_rows)

    def finetune(self, seed, *flags, files=None, epochs=None):
        """One cell: trains on the files, or a part of them that flags name."""
        options = self.options
        tests = [path for test in self.tests for path in self.cut(test).test]
        model = shlex.split(options.target) if options.target else ["--model", options.model]
        run = self.runner.run(
            "finetune", *(files or self.files).flags("train", "validation"), "--test", *tests, *model,
            "--epochs", epochs or options.epochs, "--max-length", options.max_length, "--seed", seed, "--threads", 1,
            *flags, record="metrics.json", drop=True,
        )
        if run.record is None:
            return None
        by_file = run.record.get("tests") or {f"{self.case.name}/test": run.record["test"]}
        of = {test.name: by_file[f"{test.name}/test"] for test in self.tests}
        return {
            "scores": {name: scores[self.case.score] for name, scores in of.items()},
            "tuned": {name: scores.get(f"tuned_{self.case.score}") for name, scores in of.items()},
            "seconds": run.record["train_seconds"],
        }

    def select(self, seed, flags, fresh=False):
        """Selects; the run, and the seconds of its stages, some of which run twice."""
        options = self.options
        cache = options.out / "cache" / "-".join([self.case.name, *dtype_of(flags)[1:]])
        run = self.runner.run(
            "select", *self.files.flags("train", "validation"), *settings(options, self.runner),
            "--embedder", options.model, "--metric", self.case.metric, "--budget", options.budget, "--seed", seed,
            "--threads", 1, "--cache", cache, *flags, record="selection.json", fresh=[cache] if fresh else [],
        )
        seconds = {}
        for stage in run.record["stages"] if run.record else []:
            seconds[stage["name"]] = seconds.get(stage["name"], 0.0) + stage["seconds"]
        return run, seconds

    def embed(self, flags):
        """The seconds of embedding training and validation rows, which fills the cache of ways with such flags."""
        _, seconds = self.select(0, ["--agent", "random", "--max-evaluations", 10, *dtype_of(flags)], fresh=True)
        return seconds.get("embed")

    def selected(self, seed, way, embed_seconds, *flags):
        """One cell: selects, then fine-tunes on the selection. Embedding counts as if there were no cache."""
        run, seconds = self.select(seed, way)
        cell = self.finetune(seed, "--selection", run.folder, *flags)
        return cell and {**cell, "seconds": cell["seconds"] + embed_seconds + sum(seconds.values()) - seconds["embed"]}


def everything_epochs(options):
    return options.epochs if options.everything_epochs is None else options.everything_epochs


def prepare(case, options, runner):
    """The case's target, that of its pool, and its ways with the seconds of their embedding."""
    target, pool = Target(case, options, runner), Target(lib.cases()[case.pool], options, runner)
    # Written here, before several cells would do it at once.
    for test in pool.tests:
        pool.cut(test)
    ways = dict(way.split("=", 1) for way in options.way or ["`tamis select`="])
    return target, pool, {name: (flags.split(), target.embed(flags.split())) for name, flags in ways.items()}


def common_lines(target, pool, ways, random_budgets=(), curve_seeds=0):
    """Everything, random rows, selections; as functions that make a cell, by the line's label. The longest begins first."""
    options, call, lines = target.options, functools.partial, {}
    if epochs := everything_epochs(options):
        lines["everything"] = [call(pool.finetune, 0, epochs=epochs)]
    lines["random rows"] = [call(pool.finetune, seed, "--sample", options.budget) for seed in range(options.random_seeds)]
    for budget in sorted(random_budgets, reverse=True):
        lines[f"{budget} random rows"] = [call(pool.finetune, seed, "--sample", budget) for seed in range(curve_seeds)]
    for name, (flags, seconds) in ways.items():
        lines[name] = [call(target.selected, seed, flags, seconds) for seed in range(options.seeds)]
    return lines


def measure(lines, options):
    """The cells of each line."""
    cells = iter(lib.parallel([make for makes in lines.values() for make in makes], lib.jobs_of(options)))
    return {label: [next(cells) for _ in makes] for label, makes in lines.items()}


def show(case, test, lines, options):
    """Prints the scores on the test rows of one case, and the seconds."""
    print(f"### {case.name}, {case.metric} on the test rows of {test.name}, {options.budget} of {options.rows} rows\n")

    def columns(label, kind):
        scores, random_rows = ([cell[kind].get(test.name) for cell in lines[of]] for of in [label, "random rows"])
        if None in scores + random_rows:
            return ["", ""]
        sd = statistics.stdev(random_rows) if len(random_rows) > 1 and label != "random rows" else 0.0
        return [lib.mean_sd(scores), lib.gain(statistics.mean(scores) - statistics.mean(random_rows), sd)]

    header = ["trained on", "test", "above random rows", "label biases tuned", "above random rows", "core-seconds in all"]
    seconds = {label: f"{statistics.mean(cell['seconds'] for cell in cells):.0f}" for label, cells in lines.items()}
    rows = [[label, *columns(label, "scores"), *columns(label, "tuned"), seconds[label]] for label in lines]
    print(lib.table(header, rows) + "\n", flush=True)
