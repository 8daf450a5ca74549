"""The trainer of transformers and peft beside the built-in one, on SmolLM2; needs torch and TAMIS_SMOLLM2, the model's folder."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy
import pytest
import tamis
from conftest import Files

pytest.importorskip("torch")
pytest.importorskip("peft")
MODEL = os.environ.get("TAMIS_SMOLLM2")
if not MODEL:
    pytest.skip("TAMIS_SMOLLM2 names no folder", allow_module_level=True)

import tamis.torch  # noqa: E402


def sums(first: int, count: int) -> list[dict[str, Any]]:
    """Conversations about sums, each with two answers."""
    rows = []
    for number in range(first, first + count):
        turns = ["Hello.", "What shall I add?", f"What is {number} plus {number + 7}?", f"The sum of both is {2 * number + 7}."]
        messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
        rows.append({"messages": messages})
    return rows


def vectors(folder: str) -> dict[bytes, numpy.ndarray]:
    """What the pass with sketches left in a cache, by the hashes of the rows."""
    width = 2 + 576 + 10 * 4 * 8 * 8
    found = {}
    for path in pathlib.Path(folder).rglob("*.vectors"):
        left = path.read_bytes()
        while left:
            count = int.from_bytes(left[:4], "little")
            numbers = left[4 + 16 * count :][: 4 * count * width]
            if len(numbers) < 4 * count * width:
                break
            rows = numpy.frombuffer(numbers, "<f4").reshape(count, width)
            found.update({left[4 + 16 * i :][:16]: row for i, row in enumerate(rows)})
            left = left[4 + 16 * count + len(numbers) + 16 :]
    return found


def test_losses_and_what_is_learned_are_those_of_the_built_in_trainer(files: Files) -> None:
    train, held_out = sums(0, 40), sums(200, 12)
    settings = {"epochs": 2, "batch_size": 8, "max_length": 128}
    own = tamis.finetune(train, held_out, held_out, model=MODEL, out="own", **settings)
    trainer = tamis.torch.LoraTrainer(MODEL, held_out, **settings)
    untrained = trainer.losses(trainer.base(), trainer.conversations(held_out))
    tokens = [sum(said[1:]) for _, said in trainer.conversations(held_out)]
    a_token = sum(loss * count for loss, count in zip(untrained, tokens, strict=True)) / sum(tokens)
    assert a_token == pytest.approx(own.record["untrained"]["loss"], rel=1e-4)
    # The draws of both differ, what they teach does not.
    scores = [trainer.score(train, seed) for seed in (1, 2)]
    assert scores[0] == pytest.approx(trainer.score(train, 1), rel=1e-4), "one seed, one score"
    assert max(scores) < 0.5 * sum(untrained) / len(untrained)
    assert sum(scores) / 2 == pytest.approx(own.scores["test"]["loss"], rel=0.25)


def test_it_chooses_among_selections(files: Files) -> None:
    train, held_out = sums(0, 40), sums(200, 20)
    trainer = tamis.torch.LoraTrainer(MODEL, held_out[:5], epochs=1, batch_size=8, max_length=128)
    settings = {"model": MODEL, "max_length": 128, "rerank_top": 1, "max_evaluations": 200, "clusters": 3}
    chosen = tamis.select(train, held_out, budget=8, trainer=trainer, out="run", **settings)
    scores = chosen.scores["finetuned"]
    assert len(scores["finalists"]) == len(scores["random"]) == 1
    assert all(-10 < score < 0 for score in scores["finalists"] + scores["random"])


def test_its_features_are_those_of_the_built_in_pass(files: Files) -> None:
    train, held_out = sums(0, 40), sums(200, 20)
    trainer = tamis.torch.LoraTrainer(MODEL, held_out[:5], max_length=128)
    settings = {"model": MODEL, "max_length": 128, "budget": 8, "max_evaluations": 200, "clusters": 3, "rerank": "probe"}
    made: dict[bool, list[numpy.ndarray]] = {True: [], False: []}

    class Keeps:
        name = trainer.name

        def features(self, rows: Any, sketch: Any) -> numpy.ndarray:
            made[sketch is not None].append(trainer.features(rows, sketch))
            return made[sketch is not None][-1]

    own = tamis.select(train, held_out, out="own", cache="own cache", **settings)
    other = tamis.select(train, held_out, out="other", cache="other cache", features=Keeps(), **settings)
    assert made[True] and made[False]
    # Of train and validation, in blocks; kept under the rows' hashes, which both caches share.
    ours, theirs = vectors("own cache"), vectors("other cache")
    assert ours.keys() == theirs.keys() and len(ours) >= 60
    for key, row in ours.items():
        cosine = float(theirs[key] @ row) / float(numpy.linalg.norm(theirs[key]) * numpy.linalg.norm(row))
        assert cosine > 1 - 1e-5 and numpy.abs(theirs[key] - row).max() <= 1e-3 * numpy.abs(row).max()
    assert other.scores["confirm"]["chosen"] == pytest.approx(own.scores["confirm"]["chosen"], abs=1e-3)
    before = len(made[True])
    again = tamis.select(train, held_out, out="again", cache="other cache", features=Keeps(), **settings)
    assert again.indices == other.indices and len(made[True]) == before, "what was made is kept"
    with pytest.raises(tamis.InputError, match="finetune_features: expected no fine-tune before the pass"):
        tamis.select(train, held_out, out="warm", features=Keeps(), finetune_features="50%", **settings)


def test_rows_that_are_no_conversations_are_told(files: Files) -> None:
    with pytest.raises(tamis.InputError, match="row 2"):
        tamis.torch.LoraTrainer(MODEL, [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": ""}])
    with pytest.raises(tamis.InputError, match="expected"):
        tamis.torch.LoraTrainer(MODEL, files.test)
