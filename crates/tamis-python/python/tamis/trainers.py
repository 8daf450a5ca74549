"""Trainers of the user's own: whoever trains on rows and gives a score."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import pathlib
import time
import traceback
import types
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Protocol

from tamis import _rows
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
        if not _rows.are_files(rows) and not hasattr(rows, "__len__"):
            raise InputError(
                f"train: expected rows of which a part can be taken for the trainer, found {type(rows).__qualname__}", setting="train"
            )
        self._sign = 1.0 if getattr(trainer, "higher_is_better", True) else -1.0
        self._awaited = True
        self._folder = os.getcwd()
        self.last_error: BaseException | None = None

    def __call__(self, command: Command, trials: list[Trial]) -> None:
        """Tell the score of each trial of a round."""
        # Once for all threads: one of them may have changed it when another begins.
        self._folder = os.getcwd()

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
            pool = ThreadPoolExecutor(self._parallel)
            self._awaited = True
            try:
                told = {pool.submit(self._told, trial): trial for trial in trials}
                for done in as_completed(told):
                    if not tell(told[done], **done.result()):
                        break
            finally:
                # Also on Ctrl-C: nobody waits for the trials that are left, and the folder is the program's again.
                self._awaited = False
                pool.shutdown(wait=False, cancel_futures=True)

    def _told(self, trial: Trial) -> dict[str, Any]:
        began = time.monotonic()
        try:
            said = self._score(_rows.take(self._rows, trial.indices), trial.seed)
            told = read_score(said, self._sign)
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises is an answer
            traceback.print_exc()
            self.last_error = error
            told = {"error": f"{type(error).__name__}: {error}"}
        finally:
            # The run's own paths may be relative.
            if self._awaited:
                os.chdir(self._folder)
        return {**told, "seconds": time.monotonic() - began}


def read_score(said: Any, sign: float = 1.0) -> dict[str, Any]:
    """What a trainer returned, as a score of which higher is better and its cost; TypeError where it is none."""
    cost = 0.0
    if isinstance(said, Mapping):
        if "higher_is_better" in said:
            sign = 1.0 if said["higher_is_better"] else -1.0
        cost = float(said.get("cost", 0.0))
        said = said.get("score")
    if isinstance(said, (str, bytes, bool)) or not hasattr(said, "__float__"):
        raise TypeError(f"expected a number as the score, found {said!r}")
    return {"score": sign * float(said), "cost": cost}


def name_of(trainer: Any) -> str:
    """What tells a trainer's scores from another's: its own `name`, or where it stands and a hash of what it is made of.

    That is its source, what it closes over, its defaults and the arguments of a `partial`, and of an object the source of its class
    and of what that inherits from, and its public attributes; of these texts, numbers, paths, functions, and tuples, lists and dicts
    of them.
    """
    if isinstance(name := getattr(trainer, "name", None), str):
        return name
    inner = trainer
    while isinstance(inner, functools.partial):
        inner = inner.func
    code = inner if inspect.isroutine(inner) or inspect.isclass(inner) else type(inner)
    return f"{code.__module__}.{code.__qualname__} ({hashlib.sha256(_made_of(trainer).encode()).hexdigest()[:8]})"


def _made_of(value: Any, depth: int = 4) -> str:
    """A text that is the same for the same texts, numbers, functions and containers of them, in every process."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, pathlib.PurePath)):
        return repr(value)
    if depth == 0:
        return type(value).__qualname__
    deeper = functools.partial(_made_of, depth=depth - 1)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{deeper(name)}: {deeper(of)}" for name, of in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(deeper, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(deeper, value))) + "}"
    if isinstance(value, functools.partial):
        return f"partial {deeper(value.func)} {deeper(value.args)} {deeper(value.keywords)}"
    if inspect.ismethod(value):
        return f"{deeper(value.__func__)} of {deeper(value.__self__)}"
    if inspect.isfunction(value):
        closed = {name: cell.cell_contents for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)}
        return f"{_source(value)} {deeper(closed)} {deeper(value.__defaults__)} {deeper(value.__kwdefaults__)}"
    public = {name: of for name, of in getattr(value, "__dict__", {}).items() if not name.startswith("_")}
    classes = [kind for kind in type(value).__mro__ if kind.__module__ != "builtins"]
    return f"{type(value).__qualname__} {''.join(map(_source, classes))} {deeper(public)}"


def _source(code: Any) -> str:
    """The source of a function or class, or what it was compiled to, where there is no file: in a notebook, or on a prompt."""
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        functions = [code] if inspect.isfunction(code) else filter(inspect.isfunction, getattr(code, "__dict__", {}).values())
        return " ".join([code.__qualname__, *(_compiled(function.__code__) for function in functions)])


def _compiled(code: types.CodeType) -> str:
    constants = [_compiled(value) if isinstance(value, types.CodeType) else _made_of(value) for value in code.co_consts]
    return f"{code.co_code.hex()} {constants} {code.co_names}"
