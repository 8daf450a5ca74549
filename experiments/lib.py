"""What the experiments share: data sets and cases, cut files, `tamis` run once a command, and tables.

Not a script. Python 3.11 or newer, standard library only.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import threading
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
SPLITS = ["train", "validation", "test"]


# Data sets and cases


@dataclasses.dataclass(frozen=True)
class Case:
    """A pool of training rows, and the validation and test rows of one task; see datasets.toml."""

    name: str
    pool: str
    train: tuple[str, ...]
    evaluate: str
    metric: str
    only: tuple[tuple[str, str], ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def score(self):
        """The metric's name in the records."""
        return self.metric.replace("-", "_")


@dataclasses.dataclass(frozen=True)
class Files:
    """The files of a case."""

    train: list
    validation: list
    test: list
    extra: list = dataclasses.field(default_factory=list)

    def flags(self, *splits):
        """`--train A B --validation C` and so on."""
        return [part for split in splits for part in [f"--{split}", *getattr(self, split)]]


@functools.cache
def datasets():
    return tomllib.loads((ROOT / "experiments" / "datasets.toml").read_text(encoding="utf-8"))


@functools.cache
def cases():
    """All cases by name."""
    found = {}
    for name, entry in datasets()["cases"].items():
        pool = entry.get("pool", name)
        found[name] = Case(
            name, pool, tuple(datasets()["cases"][pool]["train"]), entry["evaluate"], entry["metric"],
            tuple(entry.get("only", {}).items()), tuple(entry.get("extra", [])),
        )
    return found


def scored_with(case):
    """The cases whose test rows a target of this case's pool is scored on: it, and those that share its pool."""
    return [case, *(other for other in cases().values() if other.pool == case.name != other.name)]


def lines_of(path):
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def rows_of(data, name, split, only=()):
    """The lines of one file of a set, or those whose fields are as `only` says."""
    lines = lines_of(data / name / f"{split}.jsonl")
    expected = datasets()["sets"][name]["rows"][split]
    if len(lines) != expected:
        note(f"{data / name / split}.jsonl: expected the {expected} rows of the printed tables, found {len(lines)}")
    wanted = dict(only).items()
    return [line for line in lines if wanted <= json.loads(line).items()] if only else lines


def write_lines(path, lines):
    write(path, "\n".join(lines) + "\n")


def whole(case, options):
    """The files of a case with all their rows: those of the sets, unless the case has a filter."""
    paths = {split: [options.data / case.evaluate / f"{split}.jsonl"] for split in ["validation", "test"]}
    if case.only:
        folder = options.out / "data" / "whole" / case.name
        for split in paths:
            paths[split] = [folder / f"{split}.jsonl"]
            write_lines(paths[split][0], rows_of(options.data, case.evaluate, split, case.only))
    return Files(
        [options.data / part / "train.jsonl" for part in case.train], paths["validation"], paths["test"],
        [options.data / name / "test.jsonl" for name in case.extra],
    )


def shuffled():
    """Cuts to the first rows of a shuffle; one generator for all splits, in their order."""
    generator = random.Random(2)

    def draw(lines, most):
        lines = list(lines)
        generator.shuffle(lines)
        return lines[:most]

    return draw


def sampled(seed=0):
    """Cuts to a sample that stays in its order; each split has a generator of its own."""

    def draw(lines, most):
        if len(lines) <= most:
            return lines
        return [lines[i] for i in sorted(random.Random(seed).sample(range(len(lines)), most))]

    return draw


def cut(case, options, rows, validation_rows, test_rows, how=shuffled):
    """The files of a case with at most so many rows each, which are written if they are not there."""
    folder = options.out / "data" / f"{how.__name__}-{rows}-{validation_rows}-{test_rows}" / case.name
    train, validation, test = (folder / f"{split}.jsonl" for split in SPLITS)
    extra = [folder / name / "test.jsonl" for name in case.extra]
    if not all(path.exists() for path in [train, validation, test, *extra]):
        draw = how()
        pool = [line for part in case.train for line in rows_of(options.data, part, "train")]
        write_lines(train, draw(pool, rows))
        for path, split, most in [(validation, "validation", validation_rows), (test, "test", test_rows)]:
            write_lines(path, draw(rows_of(options.data, case.evaluate, split, case.only), most))
        for path, name in zip(extra, case.extra):
            write_lines(path, draw(rows_of(options.data, name, "test"), test_rows))
    return Files([train], [validation], [test], extra)


# Running


def note(text):
    print(text, file=sys.stderr, flush=True)


def write(path, text):
    """To a temporary sibling, then renamed, so that a stopped run leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def kept(path, key, make):
    """What `make` returns; or what it returned for the same key at an earlier start, from the file at `path`."""
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] == key:
            return stored["value"]
    value = make()
    write(path, json.dumps({"key": key, "value": value}, indent=1) + "\n")
    return value


def target_folder():
    """Where cargo builds: ROOT/target, unless CARGO_TARGET_DIR or a configuration file names another."""
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    output = subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout
    return pathlib.Path(json.loads(output)["target_directory"])


def parallel(calls, jobs):
    """What the calls return, in their order; so many run side by side."""
    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    try:
        return [future.result() for future in [pool.submit(call) for call in calls]]
    finally:
        pool.shutdown(cancel_futures=True)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's folder, and its record; none where commands are only printed."""

    folder: pathlib.Path
    record: dict | None


class Runner:
    """Runs `tamis`, each command once: a second start reads the records of the first.

    The runs are in OUT/runs, each in a folder called by a hash of its command; beside it are the record with the
    command (`.json`) and what the program said (`.log`). A new build does not change a command: measure it with
    another --out.
    """

    def __init__(self, options):
        self.out, self.only_print = options.out, options.print
        self.program = options.tamis or ("tamis" if options.print else target_folder() / "release" / "tamis")
        self.locks, self.printed = collections.defaultdict(threading.Lock), set()

    def config(self, text):
        """The flags that name a settings file of this text."""
        path = self.out / "configs" / f"{digest(text)}.toml"
        if not path.exists():
            write(path, text)
        return ["--config", path]

    def run(self, *command, record, drop=False, fresh=()):
        """Runs a command into an empty folder, or reads what an earlier start made there.

        `record` is the file that the command writes at its end. Folders in `fresh` are emptied before. With
        `drop` the run's folder is removed once it is over, and its record alone is kept.
        """
        command = [str(part) for part in command]
        folder = self.out / "runs" / f"{command[0]}-{digest(shlex.join(command))}"

        def made():
            # What a stopped run left would be gone on with, and its seconds would be too few.
            for path in [folder, *fresh]:
                shutil.rmtree(path, ignore_errors=True)
            self.call([*command, "--out", folder], folder.with_suffix(".log"))
            found = json.loads((folder / record).read_text(encoding="utf-8"))
            if drop:
                shutil.rmtree(folder)
            return found

        if self.only_print:
            self.call([*command, "--out", folder], None)
            return Run(folder, None)
        with self.locks[folder.name]:
            if not drop and not folder.exists():
                folder.with_suffix(".json").unlink(missing_ok=True)
            return Run(folder, kept(folder.with_suffix(".json"), command, made))

    def resume(self, folder, *command, record, statuses=(0,)):
        """Starts a command that goes on by itself where it ended, and is quick once all is there."""
        self.call([*command, "--out", folder], folder.with_name(folder.name + ".log"), statuses)
        return Run(folder, None if self.only_print else json.loads((folder / record).read_text(encoding="utf-8")))

    def call(self, command, log, statuses=(0,)):
        command = [str(part) for part in [self.program, *command]]
        shown = shlex.join(command)
        if self.only_print:
            if shown not in self.printed:
                print(shown, flush=True)
            self.printed.add(shown)
            return
        note(shown)
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w", encoding="utf-8") as said:
            status = subprocess.run(command, stdout=said, stderr=subprocess.STDOUT).returncode
        if status not in statuses:
            raise SystemExit(f"{shown}\nexit status {status}; {log} ends with:\n{log.read_text()[-2000:]}")


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# Options


def parser(doc, out, default_cases=(), model=True):
    """The options that all scripts have; `out` names the default work folder below runs/."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=pathlib.Path, required=True, help="the folder of the data sets")
    if model:
        made.add_argument("--model", type=pathlib.Path, required=True, help="the folder of all-MiniLM-L6-v2")
    made.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs") / out, help="the work folder")
    made.add_argument("--tamis", type=pathlib.Path, help="the binary; the release build by default")
    made.add_argument("--print", action="store_true", help="cut the data and print the commands instead of running them")
    if default_cases:
        made.add_argument("--case", nargs="+", action="extend", choices=cases(), metavar="CASE", default=[],
                          help=f"cases of datasets.toml; {', '.join(default_cases)} by default")
    return made


def jobs_of(options):
    """How many runs go side by side; printed commands come in order."""
    return 1 if options.print else options.jobs


# Tables


def mean_sd(values):
    """`mean ± standard deviation`; of one value, the value."""
    sd = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{sd}"


def gain(difference, sd):
    """A difference, and how many standard deviations it is, where there is one."""
    return f"{difference:+.4f}" + (f" ({difference / sd:+.1f} sd)" if sd else "")


def table(header, rows):
    """A Markdown table."""
    line = lambda cells: f"| {' | '.join(map(str, cells))} |"
    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)])
