"""Keyword arguments as the arguments of the command, so that both are read alike."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from tamis.errors import InputError


def arguments(command: str, settings: Mapping[str, Any]) -> list[str]:
    """The command line for these settings; None and False stand for what is not given."""
    line = command.split()
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        if getattr(value, "ndim", None) == 0:
            # A number of NumPy's.
            value = value.item()
        if value is None or value is False:
            continue
        if value is True:
            line.append(flag)
        elif isinstance(value, Mapping):
            line += [f"{flag}={role}={_text(name, of)}" for role, of in value.items()]
        elif isinstance(value, (str, os.PathLike)) or not isinstance(value, Iterable):
            line.append(f"{flag}={_text(name, value)}")
        else:
            line += [f"{flag}={_text(name, one)}" for one in value]
    return line


def _text(name: str, value: Any) -> str:
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    if name in ("budget", "budgets", "sample") and isinstance(value, float) and 0 < value <= 1:
        # A share, as elsewhere in Python.
        return f"{100 * value:.10g}%"
    if isinstance(value, (int, float)) or hasattr(value, "__index__") or hasattr(value, "__float__"):
        return str(value)
    raise InputError(f"{name}: expected a text or a number, found {value!r}", setting=name)
