"""What commands find."""

from __future__ import annotations

import csv
import html
import json
import pathlib
from functools import cached_property
from typing import Any

from tamis._run import Outcome


class Result:
    """What a command found.

    Attributes
    ----------
    summary : str
        What the command prints; shown for the object itself.
    record : dict
        All of it, as in the JSON file of the run's folder.
    out : pathlib.Path
        The run's folder.
    """

    def __init__(self, outcome: Outcome) -> None:
        self.summary = outcome.summary.strip("\n")
        self.out = pathlib.Path(outcome.out).absolute()
        self._json = outcome.record

    @cached_property
    def record(self) -> dict[str, Any]:
        """All that was found."""
        record: dict[str, Any] = json.loads(self._json)
        return record

    def __repr__(self) -> str:
        return self.summary

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.summary)}</pre>"


class Selection(Result):
    """The rows that `select` chose.

    >>> chosen = tamis.select(train, validation=task, budget="5%")
    >>> small = train.select(chosen.indices)
    """

    @cached_property
    def indices(self) -> list[int]:
        """The numbers of the chosen rows among all training rows, from 0, ascending. Of several files rows are counted through."""
        return sorted(row["index"] for row in self.record["rows"])

    @property
    def scores(self) -> dict[str, Any]:
        """The scores of the choice beside those of random rows and everything: on the `reward` fold, the `confirm` fold, and `test`."""
        scores: dict[str, Any] = self.record["scores"]
        return scores

    def table(self) -> list[dict[str, Any]]:
        """A dict for each chosen row: its `index`, `file`, `row`, `cluster`, and the `step` at which it was taken."""
        rows: list[dict[str, Any]] = self.record["rows"]
        return rows

    def report(self) -> pathlib.Path:
        """The page of the run, for people."""
        return self.out / "report.html"

    def __len__(self) -> int:
        return len(self.record["rows"])


class Study(Result):
    """A comparison of methods, by `study`."""

    def table(self) -> list[dict[str, Any]]:
        """A dict for each method and budget: its scores, gains over random rows, and seconds, as in `study.csv`."""
        with (self.out / "study.csv").open(encoding="utf-8", newline="") as file:
            return [{name: _number(text) for name, text in line.items()} for line in csv.DictReader(file)]

    def report(self) -> pathlib.Path:
        """The page of the study, for people."""
        return self.out / "report.html"


def _number(text: str) -> float | str | None:
    try:
        return float(text) if text else None
    except ValueError:
        return text


class Finetuned(Result):
    """A model that `finetune` trained."""

    @property
    def scores(self) -> dict[str, Any]:
        """Its scores on `validation` and `test`."""
        return {name: self.record.get(name) for name in ("validation", "test")}


class Check(Result):
    """What a check found."""
