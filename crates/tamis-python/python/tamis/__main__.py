"""The `tamis` command: `python -m tamis`."""

import sys

from tamis import _tamis


def main() -> int:
    """Run what the process's arguments say, and return the exit status."""
    return _tamis.command_line(["tamis", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
