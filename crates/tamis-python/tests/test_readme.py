"""The Python that README and the guide show runs as it stands, on the files that it names; but for what needs a language model."""

from __future__ import annotations

import pathlib
import re

import pytest
from conftest import Files

ROOT = pathlib.Path(__file__).parents[3]


def blocks(page: str) -> list[str]:
    """The blocks of Python on a page."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.mark.parametrize("page", ["README.md", "docs/guide/python.md"])
def test_the_examples_run(files: Files, page: str) -> None:
    shared: dict[str, object] = {}
    for block in blocks(page):
        if "LoraTrainer" in block or "SFTTrainer" in block:
            continue
        exec(compile(block, page, "exec"), shared)  # noqa: S102
    assert (files.folder / "runs/first/report.html").exists()
