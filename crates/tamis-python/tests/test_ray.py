"""Trials on a real cluster of this machine: actors and nodes are lost, the driver is killed, and the selection is the same."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import datasets
import pytest
import tamis
from conftest import FAST, Files
from test_trainers import BY_TRAINER, sound

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

import tamis.ray  # noqa: E402


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes, the second of which has the resource that trainers take."""
    try:
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "resources": {"first": 2}})
    except Exception as error:
        pytest.skip(f"Ray starts no cluster on this machine: {error}")
    cluster.add_node(num_cpus=2, resources={"second": 2})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(autouse=True)
def connected(cluster: Any) -> Iterator[None]:
    path = os.pathsep.join([str(pathlib.Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ray.init(address=cluster.address, runtime_env={"env_vars": {"PYTHONPATH": path}}, log_to_driver=False)
    yield
    ray.shutdown()


def make() -> Any:
    """A trainer on an actor, which notes every trial that it answered."""

    def score(rows: Any, seed: int) -> float:
        return sound(rows)

    return score


@pytest.fixture
def alone(files: Files) -> tamis.Selection:
    """What a function of this process chooses."""
    return tamis.select(files.train, files.validation, trainer=lambda rows, seed: sound(rows), out="alone", **BY_TRAINER)


def test_actors_answer_as_a_function_does_whatever_rows_are(files: Files, alone: tamis.Selection) -> None:
    for number, train in enumerate([files.train, datasets.Dataset.from_list(files.train), files.path("train")]):
        trainer = tamis.ray.Trainer(make, workers=2, resources={"first": 1}, name="sound")
        chosen = tamis.select(train, files.validation, trainer=trainer, out=f"run-{number}", **BY_TRAINER)
        assert chosen.indices == alone.indices
        trainer.close()


def test_texts_are_embedded_on_the_cluster_as_here(files: Files) -> None:
    def encoder() -> Any:
        import numpy

        return lambda texts: numpy.array([[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])

    here = tamis.select(files.train, files.validation, embedder=encoder(), out="here", **FAST)
    embedder = tamis.ray.Embedder(encoder, workers=2, resources={"first": 1})
    assert tamis.select(files.train, files.validation, embedder=embedder, out="there", **FAST).indices == here.indices
    embedder.close()


def test_an_actor_that_is_killed_and_a_node_that_is_lost_cost_their_trials_alone(
    files: Files, alone: tamis.Selection, cluster: Any
) -> None:
    class Dies:
        """Ends its process at its third trial, on the first start."""

        def __init__(self, folder: pathlib.Path) -> None:
            self.folder, self.asked = folder, 0

        def score(self, rows: Any, seed: int) -> float:
            import os

            self.asked += 1
            if self.asked == 3 and not (self.folder / "died").exists():
                (self.folder / "died").touch()
                os._exit(1)
            return sound(rows)

    folder = files.folder
    trainer = tamis.ray.Trainer(lambda: Dies(folder), workers=2, resources={"first": 1}, name="sound")
    chosen = tamis.select(files.train, files.validation, trainer=trainer, out="killed", **BY_TRAINER)
    assert (folder / "died").exists() and chosen.indices == alone.indices and chosen.record["failures"] == 0
    trainer.close()

    node = cluster.add_node(num_cpus=1, resources={"third": 1})
    gone = []

    class Leaves(tamis.ray.Trainer):
        """Loses the third node once five trials are told."""

        def answer(self, rows: Any, trials: Any, tell: Any) -> None:
            def told(trial: Any, *score: Any, **more: Any) -> bool:
                gone.append(trial)
                if len(gone) == 5:
                    cluster.remove_node(node, allow_graceful=False)
                    cluster.add_node(num_cpus=1, resources={"third": 1})
                return tell(trial, *score, **more)

            super().answer(rows, trials, told)

    trainer = Leaves(make, workers=1, resources={"third": 1}, name="sound")
    chosen = tamis.select(files.train, files.validation, trainer=trainer, out="lost", **BY_TRAINER)
    assert chosen.indices == alone.indices and chosen.record["failures"] == 0
    trainer.close()


DRIVER = """
import pathlib, sys
import ray
import tamis, tamis.ray

folder = sys.argv[2]

def make():
    def score(rows, seed):
        with pathlib.Path(folder, "asked").open("a") as file:
            file.write("x")
        return 1 - sum(row["wrong"] for row in rows) / len(rows)
    return score

class Tells(tamis.ray.Trainer):
    told = 0
    def answer(self, rows, trials, tell):
        def told(*what, **more):
            more = tell(*what, **more)
            Tells.told += 1
            if Tells.told == 10 and sys.argv[3] == "die":
                print("ten", flush=True)
                sys.stdin.readline()
            return more
        super().answer(rows, trials, told)

ray.init(address=sys.argv[1], log_to_driver=False)
chosen = tamis.select("train.jsonl", "validation.jsonl", trainer=Tells(make, workers=2, resources={"first": 1}, name="sound"),
                      out="run", budget=40, clusters=6, proxy="trainer", agent="climb-disc", max_evaluations=30)
print(chosen.indices)
"""


def test_a_driver_that_is_killed_goes_on_and_pays_for_no_finished_trial_again(
    files: Files, alone: tamis.Selection, cluster: Any
) -> None:
    (files.folder / "driver.py").write_text(DRIVER)
    command = [sys.executable, "driver.py", cluster.address, str(files.folder)]
    with subprocess.Popen([*command, "die"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        # Ray may tell of its nodes before.
        assert process.stdout is not None and "ten\n" in process.stdout
        process.send_signal(signal.SIGKILL)
    ended = subprocess.run([*command, "live"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == str(alone.indices)
    # Two actors: at most two trials were under way, and those that they had ended without being heard.
    assert 34 <= len((files.folder / "asked").read_text()) <= 34 + 4


def test_what_goes_wrong_on_a_cluster_is_told(files: Files) -> None:
    def raises(rows: Any, seed: int) -> float:
        raise MemoryError("no memory is left")

    def sleeps(rows: Any, seed: int) -> float:
        import time

        time.sleep(60)
        return 0.0

    for score, more, said in [
        (raises, {}, "MemoryError: no memory is left"),
        (lambda rows, seed: "x", {}, "expected a number as the score, found 'x'"),
        (sleeps, {"trial_timeout": 2}, "no answer in 2 s"),
    ]:
        trainer = tamis.ray.Trainer(lambda score=score: score, resources={"first": 1}, name=said, **more)
        with pytest.raises(tamis.InputError, match=said):
            tamis.select(files.train, files.validation, trainer=trainer, retries=0, rerank_top=1, out=said[:5], **FAST)
        trainer.close()
    with pytest.raises(tamis.InputError, match="found none in 1 s: each of them wants {'CPU': 1, 'GPU': 3}"):
        tamis.ray.Trainer(make, resources={"GPU": 3}, start_timeout=1)
    with pytest.raises(tamis.InputError, match="workers: expected a number above 0"):
        tamis.ray.Trainer(make, workers=0)
    ray.shutdown()
    with pytest.raises(tamis.InputError, match="address: expected a Ray cluster that answers"):
        tamis.ray.Trainer(make, address="127.0.0.1:1")
