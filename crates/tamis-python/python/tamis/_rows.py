"""Rows and vectors that are in memory: they become files of the run, once, and a part of them can be taken."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tamis import _tamis
from tamis._arguments import arguments
from tamis.errors import Error, InputError

#: How many rows of a Dataset are handed over together.
BATCH = 8192
#: Where rows are given.
SPLITS = ("train", "validation", "test")


def files(rows: Any, name: str, out: str | os.PathLike[str]) -> list[str]:
    """The files of a split: those that are named, or the one that rows in memory are written to, in the folder of the run."""
    if are_files(rows):
        return [os.fspath(path) for path in ([rows] if _is_path(rows) else rows)]
    if isinstance(rows, Sequence) and not isinstance(rows, bytes):
        return [_keep(f"{name}.jsonl", out, lambda path: _write_lines(path, rows, name))]
    if is_dataset(rows):
        rows = _reader(rows)
    if hasattr(rows, "__arrow_c_stream__"):
        try:
            return [os.fspath(_tamis.keep_table(rows, name, out))]
        except Error:
            raise
        except Exception as error:
            raise InputError(f"{name}: expected a table that Arrow can hold, found {error}", setting=name) from error
    raise InputError(
        f"{name}: expected a Dataset, a data frame, an Arrow table, a list of dicts, or paths of files, found {_kind(rows)}",
        hint=_way_out(rows),
        setting=name,
    )


def take(rows: Any, numbers: list[int]) -> Any:
    """These rows, as the same kind of thing; of files a list of dicts."""
    if are_files(rows):
        return [json.loads(record) for record in _tamis.records(files(rows, "train", ""), numbers)]
    if is_dataset(rows):
        return rows.select(numbers)
    if hasattr(rows, "iloc"):
        return rows.iloc[numbers]
    if hasattr(rows, "take"):
        return rows.take(numbers)
    if isinstance(rows, Sequence):
        return [rows[number] for number in numbers]
    return rows[numbers]


def vectors(embedder: Any, data: Mapping[str, Any], out: str | os.PathLike[str]) -> str | None:
    """The embedder's name, or the file of the vectors that arrays or a callable give."""
    if embedder is None or _is_path(embedder):
        return None if embedder is None else os.fspath(embedder)
    encode = getattr(embedder, "encode", embedder)
    if callable(encode):
        arrays = [_encoded(encode, texts, each) for texts, each in _tamis.texts(arguments("select", data))]
    elif isinstance(embedder, Mapping):
        if unknown := [key for key in embedder if key not in SPLITS]:
            raise InputError(f"embedder: expected arrays of train, validation and test, found {unknown[0]!r}", setting="embedder")
        arrays = [embedder[name] for name in SPLITS if embedder.get(name) is not None]
    else:
        arrays = list(embedder) if isinstance(embedder, (list, tuple)) else [embedder]
    return _keep("vectors.npy", out, lambda path: _write_array(path, arrays))


def are_files(rows: Any) -> bool:
    """Whether rows are named by their files."""
    return _is_path(rows) or (isinstance(rows, Sequence) and len(rows) > 0 and all(map(_is_path, rows)))


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))


def is_dataset(rows: Any) -> bool:
    return type(rows).__module__.startswith("datasets.") and hasattr(rows, "with_format") and hasattr(rows, "select")


def _kind(rows: Any) -> str:
    return "nothing" if rows is None else f"a {type(rows).__module__}.{type(rows).__qualname__}"


def _way_out(rows: Any) -> str | None:
    if hasattr(rows, "collect"):
        return "give its rows: `.collect()`"
    if isinstance(rows, Mapping) and any(isinstance(column, (list, tuple)) for column in rows.values()):
        return "give a table: `pandas.DataFrame(rows)`"
    if isinstance(rows, Mapping):
        return f"name one of its splits: {', '.join(map(repr, rows))}"
    if type(rows).__module__.startswith("datasets."):
        return "a stream has no end: take rows of it, `Dataset.from_list(list(stream.take(100_000)))`"
    return None


def _reader(rows: Any) -> Any:
    """A Dataset as a stream of batches: never whole in memory."""
    import pyarrow

    schema = rows.features.arrow_schema
    parts: Iterator[Any] = rows.with_format("arrow").iter(BATCH)
    batches = (batch for part in parts for batch in part.cast(schema).to_batches())
    return pyarrow.RecordBatchReader.from_batches(schema, batches)


def _keep(file: str, out: str | os.PathLike[str], write: Callable[[pathlib.Path], None]) -> str:
    """What `write` writes, under the name that its bytes ask for."""
    path = pathlib.Path(_tamis.table_path(out))
    try:
        write(path)
        return os.fspath(_tamis.keep_file(path, file))
    finally:
        path.unlink(missing_ok=True)


def _write_lines(path: pathlib.Path, rows: Sequence[Any], name: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows, 1):
            try:
                if not isinstance(row, Mapping):
                    raise TypeError(_kind(row))
                file.write(json.dumps(_plain(row), ensure_ascii=False, allow_nan=False) + "\n")
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"{name} rows in memory, line {number}: expected a dict of texts, numbers and lists, found {error}",
                    setting=name,
                    line=number,
                ) from error


def _plain(value: Any) -> Any:
    """A value as JSON has it: NaN, which stands for what is missing, as null; numbers and arrays of NumPy as Python's."""
    if isinstance(value, Mapping):
        return {name: _plain(of) for name, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(of) for of in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and value != value else value


def _encoded(encode: Callable[[list[str]], Any], texts: list[str], each: int) -> Any:
    import numpy

    made = numpy.asarray(encode(texts), dtype=numpy.float32)
    if made.ndim != 2 or len(made) != len(texts):
        raise InputError(
            f"embedder: expected an array of shape ({len(texts)}, dim) for {len(texts)} texts, found one of shape {made.shape}",
            setting="embedder",
        )
    return made.reshape(-1, each, made.shape[1]) if each > 1 else made


def _write_array(path: pathlib.Path, arrays: list[Any]) -> None:
    import numpy

    try:
        whole = numpy.concatenate([numpy.asarray(array, dtype=numpy.float32) for array in arrays])
    except (TypeError, ValueError) as error:
        raise InputError(
            f"embedder: expected arrays of shape (rows, dim), one a split, found what cannot be put together: {error}",
            setting="embedder",
        ) from error
    with path.open("wb") as file:
        numpy.save(file, whole)
