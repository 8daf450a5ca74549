"""What goes wrong, in the words of the command, with the way out."""

from __future__ import annotations


class Error(Exception):
    """A run that failed.

    Attributes
    ----------
    hint : str or None
        The way out.
    file : str or None
        The file that is at fault.
    line : int or None
        Its line, or row, from 1.
    setting : str or None
        The setting that is at fault.
    """

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        file: str | None = None,
        line: int | None = None,
        setting: str | None = None,
    ) -> None:
        super().__init__(message if hint is None else f"{message}\nhint: {hint}")
        self.hint = hint
        self.file = file
        self.line = line
        self.setting = setting


class InputError(Error, ValueError):
    """What was given is at fault: a setting, rows, a trainer that gives no score."""
