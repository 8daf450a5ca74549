"""Trainers on a Ray cluster: `pip install tamis[ray]`.

>>> trainer = tamis.ray.Trainer(lambda: tamis.torch.LoraTrainer(MODEL, held_out), workers=8, resources={"GPU": 1})  # doctest: +SKIP
>>> chosen = tamis.select(train, validation=task, model=MODEL, trainer=trainer)                                     # doctest: +SKIP
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import ray
import ray.exceptions

from tamis import _rows
from tamis._run import Trial
from tamis.errors import InputError
from tamis.trainers import name_of, read_score

#: How often it is looked who answered, in seconds.
TICK = 1.0


class Trainer:
    """A trainer whose trials are answered by actors of a Ray cluster.

    Which actor answers, and in which order, changes nothing. A trial whose actor died, or was lost with its node, is given to another;
    one that took too long is stopped. Every score is filed before it is used, so that a driver that was killed asks again only for the
    trials that were under way.

    Parameters
    ----------
    make_trainer
        Makes, on an actor, what answers there: a function `f(rows, seed)`, or an object with `score(rows, seed)`. It is called once
        for each actor, and has to be such that Ray can send it.
    workers
        How many actors there are.
    resources
        What each one takes, such as `{"GPU": 1}` or `{"CPU": 4, "GPU": 1}`; other names are the cluster's own resources.
    address
        The cluster. By default the one that the program is connected to, that `RAY_ADDRESS` names, or one on this machine.
    trial_timeout
        The most seconds that a trial may take.
    lost
        How many more times a trial is given out whose actor was lost.
    name
        What the scores depend on: those of a trainer of another name are not taken for this one's. By default that of what
        `make_trainer` makes.
    """

    def __init__(
        self,
        make_trainer: Callable[[], Any],
        workers: int = 1,
        resources: Mapping[str, float] | None = None,
        *,
        address: str | None = None,
        trial_timeout: float | None = None,
        lost: int = 3,
        name: str | None = None,
    ) -> None:
        if workers < 1:
            raise InputError(f"workers: expected a number above 0, found {workers}", setting="workers")
        _connect(address)
        self._make_trainer = make_trainer
        self._options = _options(dict(resources or {}))
        self._timeout = trial_timeout
        self._lost = lost
        self._last_loss = ""
        self._workers = [self._start() for _ in range(workers)]
        named = self._named()
        self._rows: Any = None
        self._sent: Any = None
        #: Scores of a trainer of another name are not taken for this one's.
        self.name = name or f"ray: {named}"

    def answer(self, rows: Any, trials: list[Trial], tell: Callable[..., bool]) -> None:
        """Have each trial of a round answered by an actor."""
        if self._rows is not rows and not _rows.are_files(rows):
            self._rows, self._sent = rows, ray.put(_sent(rows))
        waiting = deque((trial, 0) for trial in trials)
        idle = deque(range(len(self._workers)))
        running: dict[Any, tuple[int, Trial, int, float]] = {}
        try:
            while waiting or running:
                while waiting and idle:
                    place, (trial, losses) = idle.popleft(), waiting.popleft()
                    answer = self._workers[place].score.remote(*self._rows_for(rows, trial), trial.seed)
                    running[answer] = (place, trial, losses, time.monotonic())
                done, _ = ray.wait(list(running), timeout=TICK)
                late = [answer for answer in running if answer not in done and self._is_late(running[answer][3])]
                for answer in [*done, *late]:
                    place, trial, losses, began = running.pop(answer)
                    idle.append(place)
                    told = self._replace(place, trial) if answer in late else self._told(answer, place)
                    if told is None and losses < self._lost:
                        waiting.appendleft((trial, losses + 1))
                        continue
                    told = told or {"error": f"its actor was lost {losses + 1} times: {self._last_loss}"}
                    if not tell(trial, **told, seconds=time.monotonic() - began):
                        return
        finally:
            for answer in running:
                ray.cancel(answer, force=False)

    def close(self) -> None:
        """End the actors."""
        for worker in self._workers:
            ray.kill(worker)
        self._workers = []

    def _rows_for(self, rows: Any, trial: Trial) -> tuple[Any, list[int] | None]:
        """All rows, which are sent once, and which of them are meant; of files, which other machines may not have, these alone."""
        if _rows.are_files(rows):
            return _rows.take(rows, trial.indices), None
        return self._sent, trial.indices

    def _start(self) -> Any:
        return _Worker.options(**self._options).remote(self._make_trainer)  # type: ignore[attr-defined]

    def _named(self) -> str:
        try:
            return ray.get(self._workers[0].name.remote())
        except ray.exceptions.RayError as error:
            raise InputError(f"make_trainer: expected a trainer on each actor, found {error}", setting="make_trainer") from error

    def _is_late(self, began: float) -> bool:
        return self._timeout is not None and time.monotonic() - began > self._timeout

    def _replace(self, place: int, trial: Trial) -> dict[str, Any]:
        """A new actor in the place of one that took too long."""
        ray.kill(self._workers[place])
        self._workers[place] = self._start()
        return {"error": f"no answer to {trial.name} in {self._timeout} s"}

    def _told(self, answer: Any, place: int) -> dict[str, Any] | None:
        """What an actor answered; None where it was lost."""
        try:
            return read_score(*ray.get(answer))
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            return {"error": f"{type(cause).__name__}: {cause}"}
        except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.ObjectLostError) as error:
            self._last_loss = str(error).strip().splitlines()[0]
            ray.kill(self._workers[place])
            self._workers[place] = self._start()
            return None
        except TypeError as error:
            return {"error": str(error)}


@ray.remote
class _Worker:
    """An actor that trains."""

    def __init__(self, make_trainer: Callable[[], Any]) -> None:
        self._trainer = make_trainer()

    def name(self) -> str:
        return name_of(self._trainer)

    def score(self, rows: Any, indices: list[int] | None, seed: int) -> tuple[Any, float]:
        """What the trainer says, and the sign of a score of which higher is better."""
        rows = rows.dataset() if isinstance(rows, _Sent) else rows
        taken = rows if indices is None else _rows.take(rows, indices)
        said = getattr(self._trainer, "score", self._trainer)(taken, seed)
        return said, 1.0 if getattr(self._trainer, "higher_is_better", True) else -1.0


def _connect(address: str | None) -> None:
    if ray.is_initialized():
        return
    try:
        ray.init(address=address, log_to_driver=True)
    except (ConnectionError, ValueError, TimeoutError) as error:
        raise InputError(
            f"address: expected a Ray cluster that answers, found none at {address!r}: {error}",
            hint="start one with `ray start --head`, or leave the address out for one on this machine",
            setting="address",
        ) from error


def _options(resources: dict[str, float]) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": resources.pop("CPU", 1)}
    if (gpus := resources.pop("GPU", None)) is not None:
        options["num_gpus"] = gpus
    if resources:
        options["resources"] = resources
    return options


class _Sent:
    """A Dataset as its table: the Dataset itself may name files of the machine that it is sent from."""

    def __init__(self, dataset: Any) -> None:
        self._table = dataset.with_format("arrow")[:]

    def dataset(self) -> Any:
        """The Dataset, in memory."""
        import datasets

        return datasets.Dataset(datasets.table.InMemoryTable(self._table))


def _sent(rows: Any) -> Any:
    return _Sent(rows) if _rows.is_dataset(rows) else rows
