"""The same rows are chosen from whatever they are given as, and by the command."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import datasets
import numpy
import pandas
import polars
import pyarrow
import pytest
import tamis
from conftest import FAST, LABELS, Files


def as_dataset(rows: list[dict[str, Any]]) -> datasets.Dataset:
    return datasets.Dataset.from_list(rows)


def as_view(rows: list[dict[str, Any]]) -> datasets.Dataset:
    """A Dataset whose rows are picked from another one's."""
    doubled = datasets.Dataset.from_list([row for row in rows for _ in range(2)])
    return doubled.select(range(0, len(doubled), 2))


def as_class_labels(rows: list[dict[str, Any]]) -> datasets.Dataset:
    """Labels are numbers, whose names stand in the schema."""
    return as_dataset(rows).cast_column("label", datasets.ClassLabel(names=sorted(LABELS)))


KINDS = {
    "Dataset": as_dataset,
    "view": as_view,
    "class labels": as_class_labels,
    "pandas": pandas.DataFrame,
    "polars": polars.DataFrame,
    "pyarrow": pyarrow.Table.from_pylist,
    "dicts": list,
}


def test_rows_in_memory_are_chosen_as_those_of_files_and_by_the_command(files: Files) -> None:
    train, validation, test = files.paths()
    of_files = tamis.select(train, validation, test, out="files", seed=3, **FAST)
    assert len(of_files) == len(of_files.indices) == 40
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in {**FAST, "seed": 3}.items()]
    data = ["--train", train, "--validation", validation, "--test", test]
    command = [sys.executable, "-m", "tamis", "select", *data, "--out", "command", *flags]
    subprocess.run(command, check=True, capture_output=True)
    for name in ("selected.jsonl", "map.json"):
        assert (files.folder / "command" / name).read_bytes() == (files.folder / "files" / name).read_bytes()
    for kind, of in KINDS.items():
        splits = [of(rows) for rows in (files.train, files.validation, files.test)]
        chosen = tamis.select(*splits, out=f"of {kind}", seed=3, **FAST)
        assert chosen.indices == of_files.indices, kind
        assert chosen.scores == of_files.scores, kind


def test_several_files_are_counted_through(files: Files) -> None:
    halves = [files.folder / "a.jsonl", files.folder / "b.jsonl"]
    lines = files.path("train").read_text(encoding="utf-8").splitlines(keepends=True)
    for path, part in zip(halves, (lines[:200], lines[200:]), strict=True):
        path.write_text("".join(part), encoding="utf-8")
    whole = tamis.select(files.path("train"), files.path("validation"), out="whole", **FAST)
    assert tamis.select(halves, files.path("validation"), out="halves", **FAST).indices == whole.indices


def test_a_run_goes_on_and_is_found_done(files: Files) -> None:
    first = tamis.select(files.train, files.validation, out="run", **FAST)
    tables = sorted((files.folder / "run/tables").iterdir())
    again = tamis.select(files.train, files.validation, out="run", **FAST)
    assert again.indices == first.indices
    assert sorted((files.folder / "run/tables").iterdir()) == tables
    # What the run's folder has is enough for the command.
    shown = subprocess.run([sys.executable, "-m", "tamis", "report", "run"], check=True, capture_output=True, text=True)
    assert first.report() == files.folder / shown.stdout.strip()
    with pytest.raises(tamis.InputError, match="differs in data.train"):
        tamis.select(files.train[1:], files.validation, out="run", **FAST)


def test_what_was_chosen_is_shown_and_told(files: Files) -> None:
    rows = files.train
    chosen = tamis.select(rows, files.validation, files.test, out="run", **FAST)
    assert repr(chosen).startswith("Chosen: 40 of 480 rows")
    assert "<pre>" in chosen._repr_html_()
    assert set(chosen.table()[0]) == {"file", "row", "index", "cluster", "step"}
    assert chosen.report().exists()
    assert chosen.scores["test"]["chosen"] > chosen.scores["test"]["random_mean"]
    wrong = sum(rows[index]["wrong"] for index in chosen.indices) / 40
    assert wrong < 0.1 < sum(row["wrong"] for row in rows) / len(rows)
    written = [json.loads(line) for line in (chosen.out / "selected.jsonl").read_text().splitlines()]
    assert written == [rows[index] for index in chosen.indices]


def test_fields_have_other_names(files: Files) -> None:
    def renamed(rows: list[dict[str, Any]]) -> pandas.DataFrame:
        return pandas.DataFrame(rows).rename(columns={"text": "review", "label": "stars"})

    plain = tamis.select(files.train, files.validation, out="plain", **FAST)
    field = {"text": "review", "label": "stars"}
    chosen = tamis.select(renamed(files.train), renamed(files.validation), field=field, out="other", **FAST)
    assert chosen.indices == plain.indices


class Letters:
    """A sentence encoder: how often each letter stands in a text."""

    def encode(self, texts: list[str]) -> numpy.ndarray:
        return numpy.array([[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])


def test_vectors_come_from_arrays_a_function_or_an_encoder(files: Files) -> None:
    splits = {"train": files.train, "validation": files.validation, "test": files.test}
    encoder = Letters()
    arrays = {name: encoder.encode([row["text"] for row in rows]) for name, rows in splits.items()}
    whole = numpy.concatenate(list(arrays.values())).astype(numpy.float16)
    chosen = [
        tamis.select(**splits, embedder=embedder, out=f"run-{number}", **FAST)
        for number, embedder in enumerate([arrays, list(arrays.values()), whole, encoder, encoder.encode])
    ]
    assert all(one.indices == chosen[0].indices for one in chosen)
    with pytest.raises(tamis.InputError, match="expected 630 rows.*found 629"):
        tamis.select(**splits, embedder=whole[1:], out="short", **FAST)
    with pytest.raises(tamis.InputError, match=r"shape \(630, dim\).*shape \(480,\)|shape \(480, dim\)"):
        tamis.select(**splits, embedder=lambda texts: [len(text) for text in texts], out="flat", **FAST)


def test_dicts_may_hold_what_pandas_and_numpy_put_into_them(files: Files) -> None:
    plain = tamis.select(files.train, files.validation, out="plain", **FAST)
    rows = [{**row, "note": float("nan"), "number": numpy.int64(3), "vector": numpy.zeros(2)} for row in files.train]
    assert tamis.select(rows, files.validation, out="run", **FAST).indices == plain.indices


def test_a_folder_with_tables_of_ones_own_is_left_alone(files: Files) -> None:
    own = files.folder / "mine/tables/train.jsonl"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(tamis.InputError, match="which holds other files"):
        tamis.select(files.train, files.validation, out="mine", **FAST)
    assert own.read_text() == "mine" and len(list(own.parent.iterdir())) == 1


def test_bad_rows_are_borne_by_an_embedder_as_well(files: Files) -> None:
    rows = [*files.train, *({"label": "refund"} for _ in range(60))]
    chosen = tamis.select(rows, files.validation, embedder=Letters(), max_bad=0.5, out="run", **FAST)
    assert len(chosen) == 40 and max(chosen.indices) < 480


def test_rows_that_are_none_are_told_apart(files: Files) -> None:
    whole = datasets.DatasetDict(train=as_dataset(files.train))
    for rows, said in [
        (None, "at least one file"),
        (whole, "found a datasets.*\nhint: name one of its splits: 'train'"),
        (as_dataset(files.train).to_iterable_dataset(), "hint: a stream has no end"),
        (17, "found a builtins.int"),
        (polars.DataFrame(files.train).lazy(), "hint: give its rows: `.collect\\(\\)`"),
        ({"text": ["a"], "label": ["x"]}, "hint: give a table"),
        (pandas.DataFrame({"text": ["a", 1], "label": ["x", "y"]}), "train: expected a table that Arrow can hold"),
        ([{"text": {1, 2}}], "line 1: expected a dict of texts"),
        ([{"text": "a", "label": "x"}, "b"], "line 2: expected a dict of texts"),
        (pandas.DataFrame({"words": ["a"], "label": ["x"]}), "expected a field `text`, found label, words"),
        (files.folder / "no such file.jsonl", "could not read"),
    ]:
        with pytest.raises(tamis.InputError, match=said):
            tamis.select(rows, files.validation, out="run", **FAST)
