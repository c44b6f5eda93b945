"""Finds the files that the package ships: chat templates, DeepSpeed configurations, sample rows and recipes.

In a checkout they are folders beside the package. In an installed package they are folders inside it.
"""

__all__ = ["FOLDERS", "IS_CHECKOUT", "PACKAGE", "ROOT", "find_file"]

import functools
import os
import sys
from multiprocessing import parent_process
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
FOLDERS = ("ds_configs", "runs", "samples", "templates")
"""Their names, which are the same in a checkout and in an installed package."""
IS_CHECKOUT = not (PACKAGE / "templates").is_dir()
ROOT = PACKAGE.parent if IS_CHECKOUT else PACKAGE
"""The folder that contains FOLDERS."""


def find_file(path: Path) -> Path:
    """The file to open for a path that a user wrote.

    A path that exists is returned unchanged. A relative path that does not exist, such as "samples/nectar.jsonl",
    becomes the shipped file of that name, if there is one, and a note on stderr says so once.

    Args:
        path: An existing file or folder, a shipped file, or a path that does not exist.

    Returns:
        The path itself or the absolute path of the shipped file. A path that leads nowhere is returned unchanged, so
        that the caller's error names it as the user wrote it.
    """
    is_candidate = path.parts and path.parts[0] in FOLDERS and ".." not in path.parts
    if not is_candidate or path.exists() or not (ROOT / path).is_file():
        return path
    note(path, ROOT / path)
    return ROOT / path


@functools.cache  # a run opens its configuration and its sources several times
def note(path: Path, shipped: Path) -> None:
    """Say which shipped file is used: the main process of the first rank does, and worker processes do not."""
    if parent_process() is None and os.environ.get("RANK", "0") == "0":
        print(f"note: {path} is not in the current folder. Using the file shipped with dpo: {shipped}", file=sys.stderr)
