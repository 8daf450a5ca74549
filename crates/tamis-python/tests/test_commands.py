"""The other commands, what help says, and what is said of settings that are wrong."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import warnings

import numpy
import pytest
import tamis
from conftest import FAST, Files
from tamis import _tamis
from tamis._arguments import arguments


def test_a_study_and_checks_give_what_their_commands_do(files: Files) -> None:
    study = tamis.study(files.train, files.validation, files.test, methods=["random", "greedy"], seeds=2, **FAST)
    assert {line["method"] for line in study.table()} == {"random", "greedy"}
    assert "above random" in repr(study) and study.report().exists()
    clusters = tamis.check_clusters(files.train, files.validation, sample=200, clusters=6)
    assert clusters.record["rows"] == 480 and (clusters.out / "check_clusters.json").exists()
    agents = tamis.check_agent(
        files.train, files.validation, agents=["greedy", "random"], problems=1, seeds=1, **{**FAST, "max_evaluations": 50}
    )
    assert [agent["agent"] for agent in agents.record["agents"]] == ["greedy", "random"]


def test_every_keyword_of_select_is_a_flag_and_help_lists_all_flags() -> None:
    flags = {name for name, _ in _tamis.settings("select")}
    keywords = set(tamis.select.__annotations__) - {"return", "progress", "features", "settings"}
    assert keywords <= flags
    document = tamis.select.__doc__ or ""
    assert all(f"\n{name}\n" in document for name in flags - keywords - {"help", "help_all"})
    assert not re.search("--[a-z]", document) and "greedy" in document


def test_keyword_arguments_are_written_as_flags() -> None:
    given = {"max_time": None, "merge": True, "full": False, "field": {"text": "a b"}, "train": ["x", "y"], "budget": numpy.float32(0.25)}
    assert arguments("check proxy", given) == [
        "check", "proxy", "--merge", "--field=text=a b", "--train=x", "--train=y", "--budget=25%",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"budgt": 3}, "budgt: expected a setting that there is.*\nhint: did you mean `budget`?"),
        ({"budget": "much"}, "budget: expected a percentage.*found `much`"),
        ({"agent": "dqnn"}, "agent: expected one of `auto`.*found `dqnn`"),
        ({"max_evaluations": 0}, "max_evaluations: expected a number above 0, found 0"),
        ({"max_evaluations": 2, "agent": "dqn"}, "hint: larger chunks make shorter episodes: `chunk=<rows>`"),
        ({"field": {"text": "words"}}, 'hint: name the field of your file with `field={"text": "<name>"}`'),
        ({"out": "."}, 'hint: name a folder of its own for the run, such as `out="runs/first"`'),
        ({"proxy": "trainer"}, "trainer: expected a command, which `proxy=\"trainer\"` asks, found none"),
        ({"proxy": "trainer", "trainer": sum, "agent": "dqn"}, "agent: expected one that asks for scores of whole selections"),
        ({"proxy": "trainer", "trainer": sum, "agent": "auto"}, "max_evaluations: expected how many trainings may be spent"),
        ({"trainer": 3}, "trainer: expected a command, a function"),
        ({"trainer": sum, "trial_timeout": 3}, "trial_timeout: expected a command, whose trials tamis can stop"),
        ({"max_cost": 3}, "max_cost: expected `proxy=\"trainer\"` beside it"),
        ({"threads": 0}, "threads: expected a number from 1 to 1024, found 0"),
        ({"embedder": {"valid": []}}, "embedder: expected arrays of train, validation and test, found 'valid'"),
        ({"features": sum}, "features: expected an object with `name` and `features"),
        ({"seed": object()}, "seed: expected a text or a number"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_told_in_the_words_of_python(files: Files, settings: dict[str, object], said: str) -> None:
    with pytest.raises(tamis.InputError, match=said) as raised:
        tamis.select(files.train, files.validation, **{"out": "run", **settings})
    assert isinstance(raised.value, ValueError) and "--" not in str(raised.value)


def test_an_error_names_file_and_line(files: Files) -> None:
    files.path("train").write_text('{"text": "a", "label": "x"}\n' + "{broken\n" * 3)
    with pytest.raises(tamis.InputError, match="expected a JSON object, found broken JSON") as raised:
        tamis.select(files.path("train"), files.validation, out="run")
    assert raised.value.line == 2
    files.path("train").write_text('{"words": "a", "label": "x"}\n')
    with pytest.raises(tamis.InputError) as raised:
        tamis.select(files.path("train"), files.validation, out="run")
    assert (raised.value.file, raised.value.line) == (str(files.path("train")), 1)
    assert raised.value.hint is not None and raised.value.hint in str(raised.value)


def test_warnings_are_pythons(files: Files) -> None:
    cache = files.folder / "cache"
    cache.write_text("no folder")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tamis.select(files.train, files.validation, out="run", cache=cache, **FAST)
    assert all("--" not in str(warning.message) for warning in caught)


def test_a_bar_is_shown_where_somebody_looks(files: Files, capfd: pytest.CaptureFixture[str]) -> None:
    tamis.select(files.train, files.validation, out="silent", **FAST)
    assert capfd.readouterr().err == ""
    tamis.select(files.train, files.validation, out="shown", progress=True, **{**FAST, "max_evaluations": 20_000, "agent": "random"})
    assert "select" in capfd.readouterr().err


def test_the_command_is_there() -> None:
    for command in ([sys.executable, "-m", "tamis"], [str(pathlib.Path(sys.executable).with_name("tamis"))]):
        said = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True)
        assert said.stdout == f"tamis {tamis.__version__}\n"
