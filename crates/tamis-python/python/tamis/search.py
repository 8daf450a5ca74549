"""A search that asks for scores and is told them: for those who bring a loop of their own."""

from __future__ import annotations

import os
from typing import Any

from tamis._run import Command, Trial
from tamis.commands import select_arguments
from tamis.errors import InputError
from tamis.results import Selection
from tamis.trainers import read_score


class Search:
    """`select`, whose trials you train on yourself.

    >>> with tamis.Search(train, validation=task, proxy="trainer", agent="climb-disc", max_evaluations=60) as search:
    ...     while trials := search.ask():
    ...         for trial in trials:
    ...             search.tell(trial, -loss_after(train.select(trial.indices), trial.seed))
    ...     chosen = search.result()

    Trials come in rounds; all of a round are told, in any order, before the next is asked for. What is asked depends on the scores
    alone, and every score is filed before it is used: a search that was stopped goes on where it was.

    Rows and settings are those of `select`, without `trainer`.
    """

    def __init__(
        self,
        train: Any,
        validation: Any,
        test: Any = None,
        *,
        name: str = "ask and tell",
        out: str | os.PathLike[str] = "runs/select",
        embedder: Any = None,
        features: Any = None,
        progress: bool | None = False,
        **settings: Any,
    ) -> None:
        """`name` tells what the scores depend on: those of another name are not taken for this one's."""
        for setting in ["trainer", "parallel", "trial_timeout"]:
            if setting in settings:
                raise InputError(
                    f"{setting}: expected none, as your program trains, found {settings[setting]!r}", hint="leave it out", setting=setting
                )
        line, _ = select_arguments(train, validation, test, embedder, name, 1, {"out": out, **settings})
        self._command = Command(line, progress, asks=True, features=features)
        self._waiting: dict[str, Trial] = {}
        self._closed = False

    def ask(self) -> list[Trial]:
        """The trials of the next round; none when the search is done."""
        self._check_open()
        if self._waiting:
            raise InputError(f"ask: expected the scores of all trials of the round, found {len(self._waiting)} that are not told")
        try:
            trials = self._command.round()
        except BaseException:
            self._command.stop()
            raise
        self._waiting = {trial.name: trial for trial in trials}
        return trials

    def tell(self, trial: Trial, score: Any = None, *, error: str | None = None, cost: float = 0.0) -> None:
        """The score of a trial, higher is better; or why there is none: then it is given out again, `retries` times."""
        self._check_open()
        if self._waiting.get(trial.name) != trial:
            raise InputError(f"tell: expected a trial that waits for its score, found {trial.name}, which does not")
        told = {"score": None, "cost": 0.0} if error is not None else read_score(score)
        self._command.job.tell(trial.place, told["score"], None if error is None else str(error), told["cost"] or cost)
        del self._waiting[trial.name]

    def result(self) -> Selection:
        """What was chosen, once there are no more trials."""
        if self._command.outcome is None:
            self._check_open()
        if self._command.outcome is None and self.ask():
            raise InputError("result: expected a search that is done, found trials that wait for their scores")
        assert self._command.outcome is not None
        return Selection(self._command.outcome)

    def close(self) -> None:
        """Stop; what is done is kept."""
        if self._command.outcome is None:
            self._closed = True
            self._command.stop()

    def _check_open(self) -> None:
        if self._closed:
            raise InputError("search: expected one that is open, found one that was closed", hint="the same Search goes on with it")

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
