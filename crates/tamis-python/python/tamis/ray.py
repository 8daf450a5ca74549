"""Trainers, features and embedders on a Ray cluster: `pip install ".[ray]"`.

>>> trainer = tamis.ray.Trainer(lambda: tamis.torch.LoraTrainer(MODEL, held_out), workers=8, resources={"GPU": 1})
>>> chosen = tamis.select(train, validation=task, model=MODEL, trainer=trainer, features=trainer)
"""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ray
import ray.exceptions

from tamis import _rows
from tamis._run import Trial
from tamis.errors import Error, InputError
from tamis.trainers import name_of, read_score

#: How often it is looked who answered, in seconds.
TICK = 1.0
#: How long a cluster may take to answer, in seconds.
PATIENCE = 10.0
#: How many parts of the rows an actor is given, one after the other: the more, the better they are shared out.
PARTS = 4


class Pool:
    """Actors that each hold what `make` makes, and answer calls of its methods.

    Which actor answers, and in which order, changes nothing. A call whose actor died, or was lost with its node, is given to
    another.

    Parameters
    ----------
    make
        Makes what answers on an actor; it is called once for each, and has to be such that Ray can send it.
    workers
        How many actors there are.
    resources
        What each one takes, such as `{"GPU": 1}` or `{"CPU": 4, "GPU": 1}`; other names are the cluster's own resources.
    address
        The cluster. By default the one that the program is connected to, that `RAY_ADDRESS` names, or one on this machine.
    lost
        How many more times a call is given out whose actor was lost.
    start_timeout
        The most seconds until the first actor is up: a cluster may have to start machines for it.
    name
        What the answers depend on: those of another name are not taken for these. By default that of what `make` makes.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        workers: int = 1,
        resources: Mapping[str, float] | None = None,
        *,
        address: str | None = None,
        lost: int = 3,
        start_timeout: float = 600.0,
        name: str | None = None,
    ) -> None:
        if workers < 1:
            raise InputError(f"workers: expected a number above 0, found {workers}", setting="workers")
        _connect(address)
        self._make = make
        self._wanted = {"CPU": 1, **(resources or {})}
        self._options = _options(dict(resources or {}))
        self._lost = lost
        self._timeout: float | None = None
        self._workers = [self._start() for _ in range(workers)]
        #: Actors that are not up yet: the call that each answers once it is.
        self._starting = {worker.name.remote(): place for place, worker in enumerate(self._workers)}
        try:
            named = ray.get(self._wait_for_one(start_timeout))
        except ray.exceptions.RayError as error:
            raise InputError(f"make: expected what answers on each actor, found {error}", setting="make") from error
        #: Answers of another name are not taken for these.
        self.name = name or named

    def close(self) -> None:
        """End the actors."""
        for worker in self._workers:
            ray.kill(worker)
        self._workers = []

    def _wait_for_one(self, seconds: float) -> Any:
        """The call of the first actor that is up."""
        began = time.monotonic()
        while True:
            up, _ = ray.wait(list(self._starting), timeout=min(PATIENCE, seconds))
            if up:
                return up[0]
            wanted = f"each of them wants {self._wanted}, the cluster has {ray.cluster_resources()}"  # type: ignore[no-untyped-call]
            if time.monotonic() - began >= seconds:
                self.close()
                raise InputError(f"resources: expected actors that can be placed, found none in {seconds} s: {wanted}", setting="resources")
            warnings.warn(f"no actor is up yet: {wanted}", stacklevel=4)

    def _start(self) -> Any:
        return _Worker.options(**self._options).remote(self._make)  # type: ignore[attr-defined]

    def _calls(self, calls: Sequence[tuple[str, tuple[Any, ...]]]) -> Iterator[_Answer]:
        """The answers of these calls, each a method's name and its arguments, as they come."""
        waiting = deque((place, 0) for place in range(len(calls)))
        idle = deque(place for place in range(len(self._workers)) if place not in self._starting.values())
        running: dict[Any, tuple[int, int, int, float]] = {}
        try:
            while waiting or running:
                while waiting and idle:
                    worker, (place, losses) = idle.popleft(), waiting.popleft()
                    method, arguments = calls[place]
                    answer = getattr(self._workers[worker], method).remote(*arguments)
                    running[answer] = (worker, place, losses, time.monotonic())
                done, _ = ray.wait([*running, *self._starting], timeout=TICK)
                idle.extend(self._starting.pop(up) for up in done if up in self._starting)
                done = [answer for answer in done if answer in running]
                late = [answer for answer in running if answer not in done and self._is_late(running[answer][3])]
                for answer in [*done, *late]:
                    worker, place, losses, began = running.pop(answer)
                    said, failure = None, None
                    try:
                        if answer in late:
                            self._replace(worker)
                            failure = f"no answer in {self._timeout} s"
                        else:
                            said = ray.get(answer)
                            idle.append(worker)
                    except ray.exceptions.RayTaskError as error:
                        idle.append(worker)
                        failure = f"{type(error.cause).__name__}: {error.cause}"
                    except ray.exceptions.RayError as error:
                        # Its actor, or its node, or the actor's memory is gone.
                        self._replace(worker)
                        if losses < self._lost:
                            waiting.appendleft((place, losses + 1))
                            continue
                        failure = f"its actor was lost {losses + 1} times: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
                    yield _Answer(place, said, failure, time.monotonic() - began)
        finally:
            for answer in running:
                ray.cancel(answer, force=False)

    def _replace(self, worker: int) -> None:
        ray.kill(self._workers[worker])
        self._workers[worker] = self._start()
        self._starting[self._workers[worker].name.remote()] = worker

    def _is_late(self, began: float) -> bool:
        return self._timeout is not None and time.monotonic() - began > self._timeout

    def _spread(self, method: str, rows: Sequence[Any], *shared: Any) -> Any:
        """What a method of one argument makes of these rows, put together; the actors each get parts of them."""
        import numpy

        size = max(1, -(-len(rows) // (PARTS * len(self._workers))))
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        made: list[Any] = [None] * len(parts)
        for answer in self._calls([(method, (part, *shared)) for part in parts]):
            if answer.failure is not None:
                raise Error(f"{method} of {len(parts[answer.place])} rows: {answer.failure}")
            made[answer.place] = answer.said
        return numpy.concatenate(made)


class Trainer(Pool):
    """A trainer for `select` whose trials are answered by actors of a Ray cluster.

    What `make` makes is a function `f(rows, seed)`, or an object with `score(rows, seed)`. Every score is filed before it is used,
    so that a driver that was killed asks again only for the trials that were under way. Where the object has `features`, as
    `tamis.torch.LoraTrainer` has, the trainer serves as `features`, too.

    Parameters
    ----------
    trial_timeout
        The most seconds that a trial may take; its actor is then replaced.
    make, workers, resources, address, lost, name
        As of `Pool`.
    """

    def __init__(self, make: Callable[[], Any], workers: int = 1, *more: Any, trial_timeout: float | None = None, **named: Any) -> None:
        super().__init__(make, workers, *more, **named)
        self._timeout = trial_timeout
        self._rows: Any = None
        self._sent: Any = None
        self._sketch: Any = None

    def answer(self, rows: Any, trials: list[Trial], tell: Callable[..., bool]) -> None:
        """Have each trial of a round answered by an actor."""
        if self._rows is not rows and not _rows.are_files(rows):
            self._rows, self._sent = rows, ray.put(_Sent(rows) if _rows.is_dataset(rows) else rows)
        for place, said, failure, seconds in self._calls([("score", (*self._rows_for(rows, trial), trial.seed)) for trial in trials]):
            try:
                told = {"error": failure} if failure is not None else read_score(*said)
            except Exception as error:  # noqa: BLE001 - whatever cannot be read as a score is none
                told = {"error": f"{type(error).__name__}: {error}"}
            if not tell(trials[place], **told, seconds=seconds):
                return

    def features(self, rows: list[tuple[list[int], bytes]], sketch: Any) -> Any:
        """The features of rows of responses, each actor's of a part of them."""
        if sketch is not None and self._sketch is None:
            self._sketch = ray.put(sketch)
        return self._spread("features", rows, None if sketch is None else self._sketch)

    def _rows_for(self, rows: Any, trial: Trial) -> tuple[Any, list[int] | None]:
        """All rows, which are sent once, and which of them are meant; of files, which other machines may not have, these alone."""
        if _rows.are_files(rows):
            return _rows.take(rows, trial.indices), None
        return self._sent, trial.indices


class Embedder(Pool):
    """An embedder for `select` whose texts are shared out among actors of a Ray cluster.

    What `make` makes is a function from a list of texts to an array of shape (texts, dim), or an object with such an `encode`, as a
    SentenceTransformer is. Parameters as of `Pool`.
    """

    def encode(self, texts: list[str]) -> Any:
        """The vectors of these texts, shape (texts, dim)."""
        return self._spread("encode", texts)


class _Answer(NamedTuple):
    """What came of the call at a place: what was said, or why nothing, and after how many seconds."""

    place: int
    said: Any
    failure: str | None
    seconds: float


@ray.remote
class _Worker:
    """An actor that holds what `make` makes."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._made = make()

    def name(self) -> str:
        return name_of(self._made)

    def score(self, rows: Any, indices: list[int] | None, seed: int) -> tuple[Any, float]:
        """What the trainer says, and the sign of a score of which higher is better."""
        rows = rows.dataset() if isinstance(rows, _Sent) else rows
        taken = rows if indices is None else _rows.take(rows, indices)
        said = getattr(self._made, "score", self._made)(taken, seed)
        return said, 1.0 if getattr(self._made, "higher_is_better", True) else -1.0

    def features(self, rows: Any, sketch: Any) -> Any:
        return self._made.features(rows, sketch)

    def encode(self, texts: list[str]) -> Any:
        return getattr(self._made, "encode", self._made)(texts)


class _Sent:
    """A Dataset as its table: the Dataset itself may name files of the machine that it is sent from."""

    def __init__(self, dataset: Any) -> None:
        self._table = dataset.with_format("arrow")[:]

    def dataset(self) -> Any:
        """The Dataset, in memory."""
        import datasets

        return datasets.Dataset(datasets.table.InMemoryTable(self._table))


def _connect(address: str | None) -> None:
    if ray.is_initialized():
        return
    try:
        _reach(address or os.environ.get("RAY_ADDRESS"))
        ray.init(address=address)
    except (OSError, ValueError) as error:
        raise InputError(
            f"address: expected a Ray cluster that answers, found none at {address!r}: {error}",
            hint="start one with `ray start --head`, or leave the address out for one on this machine",
            setting="address",
        ) from error


def _reach(address: str | None) -> None:
    """Raise OSError where nobody listens: Ray itself would wait for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()


def _options(resources: dict[str, float]) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": resources.pop("CPU", 1)}
    if (gpus := resources.pop("GPU", None)) is not None:
        options["num_gpus"] = gpus
    if resources:
        options["resources"] = resources
    return options
