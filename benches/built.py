"""Where cargo puts what it builds; the benchmark programs share it."""

import json
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def target_folder():
    """ROOT/target, unless CARGO_TARGET_DIR or a configuration file names another."""
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    output = subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout
    return pathlib.Path(json.loads(output)["target_directory"])


def program():
    """The release build of tamis."""
    return target_folder() / "release" / "tamis"
