"""Trainers of the user's own: functions, objects, commands, and loops that ask and tell."""

from __future__ import annotations

import functools
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import datasets
import pandas
import pytest
import tamis
from conftest import FAST, Files
from tamis.trainers import name_of

#: A search that the trainer rewards, of few trials.
BY_TRAINER: dict[str, Any] = {"budget": 40, "clusters": 6, "proxy": "trainer", "agent": "climb-disc", "max_evaluations": 30}


def sound(rows: Any) -> float:
    """The share of rows with their own label, of a list, a Dataset or a data frame."""
    wrong = list(rows["wrong"]) if hasattr(rows, "column_names") or hasattr(rows, "iloc") else [row["wrong"] for row in rows]
    return 1 - sum(wrong) / len(wrong)


class Counting:
    """A trainer that counts its trials."""

    name = "the share of sound rows"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def score(self, rows: Any, seed: int) -> float:
        self.asked.append(seed)
        return sound(rows)


def test_a_function_compares_the_best_selections_and_gets_rows_of_its_users_kind(files: Files) -> None:
    kinds = {
        list: files.train,
        pandas.DataFrame: pandas.DataFrame(files.train),
        datasets.Dataset: datasets.Dataset.from_list(files.train),
    }
    for kind, train in kinds.items():

        def trainer(rows: Any, seed: int, kind: type = kind) -> float:
            assert isinstance(rows, kind) and len(rows) == 40 and seed >= 0
            return sound(rows)

        chosen = tamis.select(train, files.validation, trainer=trainer, out=f"of {kind.__name__}", **FAST)
        scores = chosen.scores["finetuned"]
        assert len(scores["finalists"]) == len(scores["random"]) == 4
        assert sound([files.train[index] for index in chosen.indices]) == pytest.approx(max(scores["finalists"]))


def test_a_trainer_rewards_the_search_and_is_asked_once_for_each_selection(files: Files) -> None:
    trainer = Counting()
    chosen = tamis.select(files.train, files.validation, trainer=trainer, out="run", **BY_TRAINER)
    # The best states are known by then; the random selections beside them are not.
    assert len(trainer.asked) == 30 + 4
    scores = chosen.scores["finetuned"]
    assert max(scores["finalists"]) > max(scores["random"])
    again = tamis.select(files.train, files.validation, trainer=trainer, out="run", **BY_TRAINER)
    assert again.indices == chosen.indices and len(trainer.asked) == 34
    for parallel, agent in [(4, {}), (2, {"agent": "ppo"}), (1, {"agent": "dqn", "reward_model": "climb-disc"})]:
        other = tamis.select(
            files.train, files.validation, trainer=Counting(), parallel=parallel, out=f"{parallel}", **{**BY_TRAINER, **agent}
        )
        assert other.record["evaluations"] == 30
        assert agent or other.indices == chosen.indices, "as many at once as one likes"


def test_a_loss_is_lower_for_better_rows(files: Files) -> None:
    class Loss(Counting):
        higher_is_better = False

        def score(self, rows: Any, seed: int) -> dict[str, float]:
            return {"score": 1 - super().score(rows, seed), "cost": 0.5}

    class SaidTwice(Loss):
        def score(self, rows: Any, seed: int) -> dict[str, Any]:
            return {**super().score(rows, seed), "higher_is_better": False}

    gain = tamis.select(files.train, files.validation, trainer=Counting(), out="gain", **BY_TRAINER)
    twice = tamis.select(files.train, files.validation, trainer=SaidTwice(), out="twice", **BY_TRAINER)
    assert twice.indices == gain.indices
    loss = tamis.select(files.train, files.validation, trainer=Loss(), out="loss", **BY_TRAINER)
    assert loss.scores["finetuned"]["finalists"] == pytest.approx([score - 1 for score in gain.scores["finetuned"]["finalists"]])
    dear = Loss()
    tamis.select(files.train, files.validation, trainer=dear, out="dear", **{**BY_TRAINER, "max_evaluations": 1000, "max_cost": 10})
    # Whole rounds: at least 20 trials at .5 each, and four to compare with.
    assert 20 <= len(dear.asked) - 4 < 1000


def test_trainers_without_a_file_are_known_by_what_they_do() -> None:
    def trainer(score: str, base: str = "0") -> Any:
        scope: dict[str, Any] = {"__name__": "__main__"}
        base = f"class Base:\n    def floor(self):\n        return {base}\n"
        exec(f"{base}class Own(Base):\n    def score(self, rows, seed):\n        return {score} + self.floor()", scope)  # noqa: S102
        return scope["Own"]()

    assert name_of(trainer("1")) == name_of(trainer("1"))
    assert len({name_of(trainer("1")), name_of(trainer("2")), name_of(trainer("1", base="3"))}) == 3


def test_a_trainer_that_fails_is_asked_again_and_then_left(files: Files) -> None:
    failing = {"left": 2}

    def fails_twice(rows: Any, seed: int) -> float:
        failing["left"] -= 1
        if failing["left"] >= 0:
            raise MemoryError("no memory is left")
        return sound(rows)

    chosen = tamis.select(files.train, files.validation, trainer=fails_twice, out="mended", **BY_TRAINER)
    assert chosen.record["failures"] == 0
    # One selection in a hundred that never trains is marked, and the search goes on.
    failing["left"] = 2
    settings = {**BY_TRAINER, "retries": 0, "max_evaluations": 60}
    chosen = tamis.select(files.train, files.validation, trainer=fails_twice, out="marked", **settings)
    assert chosen.record["failures"] == 2


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (None, "expected a number as the score, found None"),
        ("0.9", "found '0.9'"),
        (float("inf"), "found the score inf"),
        ({"loss": 1.0}, "found None"),
        (ValueError("a batch is too large"), "found ValueError: a batch is too large"),
    ],
)
def test_an_answer_that_is_no_score_is_told_with_its_cause(
    files: Files, capfd: pytest.CaptureFixture[str], said: Any, found: str
) -> None:
    asked = []

    def trainer(rows: Any, seed: int) -> Any:
        asked.append(seed)
        if isinstance(said, Exception):
            raise said
        return said

    with pytest.raises(tamis.InputError, match="expected a score for the trial .* rows") as raised:
        tamis.select(files.train, files.validation, trainer=trainer, retries=0, out="run", **FAST)
    assert found in str(raised.value)
    assert len(asked) == 1, "one that fails is enough"
    if isinstance(said, Exception):
        assert raised.value.__cause__ is said
        assert "Traceback" in capfd.readouterr().err


def test_a_loop_asks_and_tells(files: Files) -> None:
    chosen = tamis.select(files.train, files.validation, trainer=Counting(), out="select", **BY_TRAINER)
    with tamis.Search(files.train, files.validation, out="search", **BY_TRAINER) as search:
        rounds = 0
        while trials := search.ask():
            rounds += 1
            with pytest.raises(tamis.InputError, match="expected the scores of all trials"):
                search.ask()
            # Whoever answers first changes nothing.
            for trial in reversed(trials):
                search.tell(trial, sound([files.train[index] for index in trial.indices]))
            with pytest.raises(tamis.InputError, match="expected a trial that waits"):
                search.tell(trials[0], 0.5)
        assert search.result().indices == chosen.indices and rounds > 2
    # One that was left in the middle goes on.
    asked = []
    for most in (1, 100):
        with tamis.Search(files.train, files.validation, out="left", **BY_TRAINER) as search:
            while most > 0 and (trials := search.ask()):
                most -= 1
                for trial in trials:
                    asked.append(trial.name)
                    search.tell(trial, sound([files.train[index] for index in trial.indices]))
            if most:
                assert search.result().indices == chosen.indices
    assert len(asked) == len(set(asked)) == 34


def test_scores_are_those_of_the_very_trainer_and_trial(files: Files) -> None:
    def of(label: str) -> Any:
        return lambda rows, seed: sum(row["label"] == label for row in rows)

    def share(label: str, rows: Any, seed: int) -> float:
        return sum(row["label"] == label for row in rows)

    class Label:
        def __init__(self, label: str) -> None:
            self.label = label
            self._asked = 0

        def score(self, rows: Any, seed: int) -> float:
            self._asked += 1
            return share(self.label, rows, seed)

    for number, made in enumerate([of, lambda label: functools.partial(share, label), Label]):
        one = made("refund")
        first = tamis.select(files.train, files.validation, trainer=one, out=f"run-{number}", **FAST)
        assert tamis.select(files.train, files.validation, trainer=one, out=f"run-{number}", **FAST).indices == first.indices
        with pytest.raises(tamis.InputError, match="differs in trainer"):
            tamis.select(files.train, files.validation, trainer=made("login"), out=f"run-{number}", **FAST)
    with tamis.Search(files.train, files.validation, out="search", **BY_TRAINER) as search:
        first, second = (_told(search, files) for _ in range(2))
        third = search.ask()
        assert first and second and third
        with pytest.raises(tamis.InputError, match="expected a trial that waits for its score"):
            search.tell(first[0], 123.0)
    for call in (search.ask, search.result, lambda: search.tell(third[0], 1.0)):
        with pytest.raises(tamis.InputError, match="one that was closed"):
            call()


def _told(search: tamis.Search, files: Files) -> list[tamis.Trial]:
    trials = search.ask()
    for trial in trials:
        search.tell(trial, sound([files.train[index] for index in trial.indices]))
    return trials


def test_ctrl_c_stops_all_threads_at_once(files: Files) -> None:
    asked: list[int] = []
    # Threads count together: the length of the list may be another's by the time it is read.
    order = itertools.count(1)

    def slow(rows: Any, seed: int) -> float:
        asked.append(seed)
        if next(order) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        return sound(rows)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        tamis.select(files.train, files.validation, trainer=slow, parallel=2, out="run", **BY_TRAINER)
    assert len(asked) <= 6 and time.monotonic() - began < 10


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_trainer_may_go_to_another_folder(files: Files, parallel: int) -> None:
    def goes(rows: Any, seed: int) -> float:
        os.chdir("/")
        return sound(rows)

    chosen = tamis.select(files.train, files.validation, trainer=goes, parallel=parallel, out="run", **FAST)
    assert pathlib.Path.cwd() == files.folder
    assert chosen.report().is_absolute() and chosen.report().exists()


def test_a_command_rewards_the_search(files: Files) -> None:
    (files.folder / "train.py").write_text(
        textwrap.dedent(
            """
            import json, sys
            for line in sys.stdin:
                trial = json.loads(line)
                rows = [json.loads(row) for row in open(trial["rows_file"])]
                score = 1 - sum(row["wrong"] for row in rows) / len(rows)
                print(json.dumps({"trial": trial["trial"], "score": score, "cost": 1}), flush=True)
                open("asked", "a").write("x")
            open("ended", "a").write("x")
            """
        )
    )
    command = f"{sys.executable} train.py"
    own = tamis.select(files.train, files.validation, trainer=Counting(), out="own", **BY_TRAINER)
    chosen = tamis.select(files.path("train"), files.path("validation"), trainer=command, parallel=2, out="run", **BY_TRAINER)
    assert chosen.indices == own.indices
    assert len((files.folder / "asked").read_text()) == 34
    # Processes stay from one round to the next: two for the search, two to compare.
    assert len((files.folder / "ended").read_text()) <= 4


STOPPED = """
import pathlib, sys, tamis

def trainer(rows, seed):
    asked = pathlib.Path("asked")
    with asked.open("a") as file:
        file.write("x")
    if len(asked.read_text()) == 10:
        print("ten", flush=True)
        sys.stdin.readline()
    return len(str(rows)) / 1e5

trainer.name = "lengths"
chosen = tamis.select("train.jsonl", "validation.jsonl", trainer=trainer, out="run", budget=40, clusters=6,
                      proxy="trainer", agent="climb-disc", max_evaluations=30)
print(chosen.indices)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_was_stopped_or_killed_goes_on_and_pays_again_for_the_trial_at_hand_alone(files: Files, how: int) -> None:
    (files.folder / "run.py").write_text(STOPPED)
    command = [sys.executable, "run.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ten\n"
        os.kill(process.pid, how)
        _, said = process.communicate(timeout=60)
        assert process.returncode != 0
        assert how == signal.SIGKILL or "KeyboardInterrupt" in said
    resumed = subprocess.run(command, check=True, capture_output=True, text=True, input="\n")
    assert (files.folder / "asked").read_text() == "x" * (34 + 1)
    (files.folder / "asked").unlink()
    fresh = subprocess.run([*command], check=True, capture_output=True, text=True, input="\n", cwd=_copy(files.folder))
    assert resumed.stdout.splitlines()[-1] == fresh.stdout.splitlines()[-1]


def _copy(folder: pathlib.Path) -> pathlib.Path:
    other = folder / "other"
    other.mkdir()
    for name in ("run.py", "train.jsonl", "validation.jsonl"):
        (other / name).write_bytes((folder / name).read_bytes())
    return other


def test_other_threads_of_the_program_go_on_meanwhile(files: Files) -> None:
    ticks, done = [], threading.Event()

    def tick() -> None:
        while not done.wait(0.001):
            ticks.append(1)

    thread = threading.Thread(target=tick)
    thread.start()
    tamis.select(files.train, files.validation, out="run", **FAST)
    done.set()
    thread.join()
    assert len(ticks) > 20
