#!/usr/bin/env python3
"""What the Python package costs beside the work itself.

Measures  the time of an import; seconds a trial beyond a trainer that does nothing; memory of a run on a Dataset of many rows;
          trials a minute of a trainer on one and on two Ray actors.
Needs     the installed package with `ray` and `test`, see CONTRIBUTING.md.
Prints    the tables of docs/results/python.md.

    target/python/bin/python experiments/python.py

Rows are made up. Memory is the peak of a process of its own, read from its own accounting.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

WORDS = ("refund", "card", "login", "mail", "parcel", "late", "courier", "reset", "invoice", "street", "box", "code")
#: Settings under which a search asks a trainer for random selections alone.
BY_TRAINER: dict[str, Any] = {"budget": 100, "proxy": "trainer", "agent": "random", "clusters": 50}


def rows_of(count: int, seed: int) -> list[dict[str, str]]:
    """Made-up rows of six words, whose label is the first word's."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        words = draw.choices(WORDS, k=6)
        rows.append({"text": f"{' '.join(words)} {number}", "label": "ab"[WORDS.index(words[0]) % 2]})
    return rows


def imports() -> str:
    """Seconds of `import tamis`, beyond those of an interpreter that imports nothing."""

    def seconds(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    pairs = [(seconds("import tamis"), seconds("")) for _ in range(11)]
    found = [with_tamis - without for with_tamis, without in pairs]
    return f"| `import tamis` | {1000 * statistics.median(found):.0f} ms |"


def trials(count: int) -> str:
    """Milliseconds a trial of a search whose trainer does nothing, beyond the same search with fewer trials."""
    import tamis

    train, validation = rows_of(5_000, 1), rows_of(300, 2)

    def seconds(evaluations: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            spent: list[float] = []

            def score(rows: Any, seed: int) -> float:
                start = time.perf_counter()
                value = len(rows[0]["text"]) / 100
                spent.append(time.perf_counter() - start)
                return value

            tamis.select(train, validation, trainer=score, out=folder, max_evaluations=evaluations, **BY_TRAINER)
            return time.perf_counter() - began - sum(spent)

    few, many = seconds(count // 10), seconds(count)
    return f"| a trial, of {count:,} | {1000 * (many - few) / (count - count // 10):.2f} ms |"


def memory(count: int) -> str:
    """The peak of a process that selects from a Dataset of so many rows, beside one that only has it."""
    import datasets

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        datasets.Dataset.from_generator(lambda: iter(rows_of(count, 1)), cache_dir=str(path / "cache")).save_to_disk(path / "train")
        size = sum(file.stat().st_size for file in (path / "train").glob("*.arrow"))
        lines = [("the Dataset's file", size)]
        for what, name in [("has", "Python with the Dataset"), ("selects", "1% of it by Python"), ("command", "1% of its file by the command")]:
            command = [sys.executable, __file__, "--memory-of", folder, "--what", what]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            lines.append((name, int(said.splitlines()[-1])))
        return "\n".join(f"| {name} | {size / 2**20:,.0f} MiB |" for name, size in lines)


def memory_of(folder: pathlib.Path, what: str) -> None:
    """Print the peak of this process, or of the command that it runs, in bytes."""
    settings = {"budget": "1%", "max_evaluations": 500, "cache": folder / f"kept by {what}"}
    who = resource.RUSAGE_SELF
    if what == "command":
        who = resource.RUSAGE_CHILDREN
        files = {"train": folder / "train", "validation": folder / "validation.jsonl", "out": folder / "of command"}
        (folder / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(1000, 2)))
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in {**files, **settings}.items()]
        subprocess.run([sys.executable, "-m", "tamis", "select", *flags], check=True, capture_output=True)
    else:
        import datasets

        train = datasets.load_from_disk(folder / "train")
        if what == "selects":
            import tamis

            assert len(tamis.select(train, rows_of(1000, 2), out=folder / "run", **settings)) == len(train) // 100
    print(resource.getrusage(who).ru_maxrss * 1024)


def on_ray(seconds: float, count: int) -> str:
    """Trials a minute of a trainer that takes so long, on one actor and on two."""
    import ray

    import tamis
    import tamis.ray

    train, validation = rows_of(5_000, 1), rows_of(300, 2)
    ray.init(num_cpus=2, log_to_driver=False)
    lines = []
    for workers in (1, 2):

        def make() -> Any:
            def score(rows: Any, seed: int) -> float:
                time.sleep(seconds)
                return len(rows[0]["text"]) / 100

            return score

        trainer = tamis.ray.Trainer(make, workers=workers, name="sleeps")
        with tempfile.TemporaryDirectory() as folder:
            told: list[float] = []
            answer = trainer.answer

            def timed(rows: Any, trials: Any, tell: Any, answer: Any = answer) -> None:
                def tells(*what: Any, **more: Any) -> bool:
                    told.append(time.perf_counter())
                    return tell(*what, **more)

                answer(rows, trials, tells)

            trainer.answer = timed  # type: ignore[method-assign]
            tamis.select(train, validation, trainer=trainer, out=folder, max_evaluations=count, **BY_TRAINER)
        lines.append(f"| {workers} | {60 * (len(told) - 1) / (told[-1] - told[0]):.0f} | {60 * workers / seconds:.0f} |")
        trainer.close()
    ray.shutdown()
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--memory-of", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--what", choices=["has", "selects", "command"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        memory_of(options.memory_of, options.what)
        return
    print(f"| | |\n|---|---|\n{imports()}\n{trials(options.trials)}\n", flush=True)
    print(f"| {options.rows:,} rows | peak |\n|---|---|\n{memory(options.rows)}\n", flush=True)
    print(f"| actors | trials a minute | at most |\n|---|---|---|\n{on_ray(0.2, 200)}")


if __name__ == "__main__":
    main()
