"""The Python that README and the guides show runs as it stands, on the files that they name."""

from __future__ import annotations

import pathlib
import re

import pytest
from conftest import Files

ROOT = pathlib.Path(__file__).parents[3]


def blocks(page: str) -> list[str]:
    """The blocks of Python on a page, without those that are marked as parts of another program."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.mark.parametrize("page", ["README.md", "docs/guide/python.md"])
def test_the_examples_run(files: Files, page: str) -> None:
    shared: dict[str, object] = {}
    for block in blocks(page):
        if "no_gpu_here" in block or "LoraTrainer" in block:
            continue
        exec(compile(block, page, "exec"), shared)  # noqa: S102
    assert (files.folder / "runs/first/report.html").exists()
