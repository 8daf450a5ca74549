"""Small tables of three topics, of which a fifth of the training rows carry a wrong label."""

from __future__ import annotations

import json
import pathlib
import random
from typing import Any

import pytest

TOPICS = {
    "refund": "money back charge paid invoice card",
    "login": "password account reset locked mail code",
    "delivery": "parcel late courier address box street",
}
LABELS = list(TOPICS)


def rows_of(seed: int, count: int, noise: float = 0.0) -> list[dict[str, Any]]:
    """Rows of a few words of their topic, with `wrong` where the label is another one."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        topic = draw.choice(LABELS)
        words = draw.choices(TOPICS[topic].split(), k=4)
        wrong = draw.random() < noise
        label = draw.choice([other for other in LABELS if other != topic]) if wrong else topic
        rows.append({"text": f"{' '.join(words)} {seed}-{number}", "label": label, "wrong": wrong})
    return rows


class Files:
    """The rows of each split, and the JSON Lines files that hold them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.train = rows_of(1, 480, noise=0.2)
        self.validation = rows_of(2, 90)
        self.test = rows_of(3, 60)
        for name in ("train", "validation", "test"):
            lines = (json.dumps(row) + "\n" for row in getattr(self, name))
            self.path(name).write_text("".join(lines), encoding="utf-8")

    def path(self, name: str) -> pathlib.Path:
        return self.folder / f"{name}.jsonl"

    def paths(self) -> list[pathlib.Path]:
        return [self.path(name) for name in ("train", "validation", "test")]


@pytest.fixture
def files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """The files, in a folder that is the present one; caches are there as well."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Files(tmp_path)


#: Settings under which a run takes a moment.
FAST: dict[str, Any] = {"budget": 40, "max_evaluations": 300, "clusters": 6}
