"""Trainers of the user's own: whoever trains on rows and gives a score."""

from __future__ import annotations

import hashlib
import inspect
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Protocol

from tamis._rows import take
from tamis._run import Command, Trial
from tamis.errors import InputError


class Trainer(Protocol):
    """An object that trains on rows.

    It may have two attributes: `higher_is_better`, which is False where `score` is a loss, and `name`, a text that tells what
    its scores depend on, so that those of another trainer are not taken for its own.
    """

    def score(self, rows: Any, seed: int) -> Any:
        """Train on these rows, and return a number, or a dict with `score` and `cost`."""


class RoundTrainer(Protocol):
    """A trainer that takes whole rounds of trials, as one on a cluster does."""

    name: str

    def answer(self, rows: Any, trials: list[Trial], tell: Callable[..., bool]) -> None:
        """Call `tell(trial, score)` or `tell(trial, error=...)` for each trial, in any order, until it returns False: then no more are
        wanted. `rows` are all rows to choose from."""


class Answers:
    """Tells a command the scores that a trainer gives."""

    def __init__(self, trainer: Any, rows: Any, parallel: int) -> None:
        self._trainer = trainer
        self._rows = rows
        self._parallel = parallel
        self._score = getattr(trainer, "score", trainer)
        if not hasattr(trainer, "answer") and not callable(self._score):
            raise InputError(
                f"trainer: expected a command, a function of rows and seed, or an object with `score(rows, seed)`, found {trainer!r}",
                setting="trainer",
            )
        self._sign = 1.0 if getattr(trainer, "higher_is_better", True) else -1.0
        self.last_error: BaseException | None = None

    def __call__(self, command: Command, trials: list[Trial]) -> None:
        """Tell the score of each trial of a round."""

        def tell(trial: Trial, score: Any = None, *, error: str | None = None, cost: float = 0.0, seconds: float = 0.0) -> bool:
            return command.job.tell(trial.place, score, error, cost, seconds)

        if hasattr(self._trainer, "answer"):
            self._trainer.answer(self._rows, trials, tell)
        elif self._parallel == 1:
            # On the thread of whoever called: there Ctrl-C reaches it.
            for trial in trials:
                if not tell(trial, **self._told(trial)):
                    break
        else:
            with ThreadPoolExecutor(self._parallel) as pool:
                told = {pool.submit(self._told, trial): trial for trial in trials}
                for done in as_completed(told):
                    if not tell(told[done], **done.result()):
                        pool.shutdown(wait=False, cancel_futures=True)
                        break

    def _told(self, trial: Trial) -> dict[str, Any]:
        began = time.monotonic()
        try:
            said = self._score(take(self._rows, trial.indices), trial.seed)
            told = read_score(said, self._sign)
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises is an answer
            traceback.print_exc()
            self.last_error = error
            told = {"error": f"{type(error).__name__}: {error}"}
        return {**told, "seconds": time.monotonic() - began}


def read_score(said: Any, sign: float = 1.0) -> dict[str, Any]:
    """What a trainer returned, as a score of which higher is better and its cost; TypeError where it is none."""
    cost = 0.0
    if isinstance(said, Mapping):
        sign = sign if said.get("higher_is_better", True) else -sign
        cost = float(said.get("cost", 0.0))
        said = said.get("score")
    if isinstance(said, (str, bytes, bool)) or not hasattr(said, "__float__"):
        raise TypeError(f"expected a number as the score, found {said!r}")
    return {"score": sign * float(said), "cost": cost}


def name_of(trainer: Any) -> str:
    """What tells a trainer's scores from another's: its own name for it, or where it stands and a hash of its source."""
    if isinstance(name := getattr(trainer, "name", None), str):
        return name
    code = trainer if inspect.isroutine(trainer) or inspect.isclass(trainer) else type(trainer)
    try:
        source = inspect.getsource(code)
    except (OSError, TypeError):
        source = ""
    mark = hashlib.sha256(source.encode()).hexdigest()[:8] if source else "no source"
    return f"{code.__module__}.{code.__qualname__} ({mark})"
