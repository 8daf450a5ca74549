"""A command under way: its bar is shown, its warnings are given, its trials are trained on."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from tamis import _tamis
from tamis.errors import InputError

#: How often the bar is looked after, in seconds.
TICK = 0.1
#: Stages shorter than this have no bar.
SHORT = 0.5


class Trial(NamedTuple):
    """Rows to train on.

    Attributes
    ----------
    name : str
        The same for the same rows and seed.
    indices : list of int
        The numbers of the rows among all training rows, from 0, in the order in which they were chosen.
    seed : int
        The source of the training's randomness, below 2**64.
    place : int
        Its place in the round.
    """

    name: str
    indices: list[int]
    seed: int
    place: int


class SketchedLayer(NamedTuple):
    """A linear layer whose gradient is sketched: A G Bᵀ, G being the gradient of its weight.

    Attributes
    ----------
    name : str
        The layer, as transformers names it: `model.layers.29.mlp.down_proj`.
    at : int
        Where its numbers begin in a row's sketch; they have shape (side, side).
    a, b : numpy.ndarray
        Of shape (side, outputs) and (side, inputs).
    """

    name: str
    at: int
    a: Any
    b: Any

    @classmethod
    def read(cls, name: str, at: int, side: int, a: bytes, b: bytes) -> SketchedLayer:
        """A layer whose matrices are float32 in rows."""
        import numpy

        return cls(name, at, *(numpy.frombuffer(matrix, "<f4").reshape(side, -1) for matrix in (a, b)))


class Outcome(NamedTuple):
    """What a command found: for a person, as JSON, where it is, and what of it failed."""

    summary: str
    record: str
    out: str
    failure: str | None


class Command:
    """A command under way in a thread of its own."""

    def __init__(self, arguments: list[str], progress: bool | None, asks: bool, features: Any = None) -> None:
        if features is not None and not (hasattr(features, "name") and callable(getattr(features, "features", None))):
            raise InputError(
                f"features: expected an object with `name` and `features(rows, sketch)`, found {features!r}", setting="features"
            )
        self.job = _tamis.Job(arguments, asks, None if features is None else str(features.name))
        self._features = features
        self._sketch: list[SketchedLayer] | None = None
        self._bar = _Bar(_wants_bar() if progress is None else progress)
        self.outcome: Outcome | None = None

    def round(self) -> list[Trial]:
        """Wait for the next round of trials; none when the command is done."""
        while self.outcome is None:
            event = self.job.next(TICK)
            self._bar.show(self.job.progress())
            if event is None:
                continue
            kind, content = event
            if kind == "warning":
                self._bar.close()
                warnings.warn(content, stacklevel=4)
            elif kind == "features":
                self._make_features(*content)
            elif kind == "round":
                return [Trial(name, rows, seed, place) for place, (name, rows, seed) in enumerate(content)]
            else:
                self.outcome = Outcome(*content)
        self._bar.close()
        return []

    def _make_features(self, rows: list[tuple[list[int], bytes]], sketched: bool) -> None:
        import numpy

        if sketched and self._sketch is None:
            self._sketch = [SketchedLayer.read(*layer) for layer in self.job.sketch()]
        made = self._features.features(rows, self._sketch if sketched else None)
        made = numpy.ascontiguousarray(made, dtype="<f4")
        if made.ndim != 2 or len(made) != len(rows):
            raise InputError(
                f"features: expected an array of shape ({len(rows)}, dim), found one of shape {made.shape}", setting="features"
            )
        self.job.tell_features(made.tobytes(), made.shape[1])

    def stop(self) -> None:
        """Stop it; what is done is kept."""
        self._bar.close()
        self.job.stop()


def run(
    arguments: list[str],
    progress: bool | None = None,
    answer: Callable[[Command, list[Trial]], None] | None = None,
    features: Any = None,
) -> Outcome:
    """Run a command to its end; `answer` tells the scores of each round, and `features` makes those of rows of responses."""
    command = Command(arguments, progress, asks=answer is not None, features=features)
    try:
        while trials := command.round():
            assert answer is not None
            answer(command, trials)
    except BaseException:
        command.stop()
        raise
    assert command.outcome is not None
    if command.outcome.failure is not None:
        warnings.warn(command.outcome.failure, stacklevel=4)
    return command.outcome


def _wants_bar() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class _Bar:
    """tqdm's bar of the present stage."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._bar: Any = None
        self._stage: str | None = None

    def show(self, progress: tuple[str, int, int | None, str, float] | None) -> None:
        if not self._shown:
            return
        if progress is None or progress[0] != self._stage:
            self.close()
        if progress is None:
            return
        stage, done, total, note, seconds = progress
        if self._bar is None:
            if seconds < SHORT:
                return
            from tqdm.auto import tqdm

            self._stage = stage
            self._bar = tqdm(total=total, desc=stage, leave=False)
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None
        self._stage = None
