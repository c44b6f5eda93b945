"""Folders that a user names."""

__all__ = ["RESULTS", "check_folder"]

import os
from pathlib import Path

from dpo.errors import ConfigError

RESULTS = "train_results.json"
"""Written last: an output_dir that has it holds a finished run."""


def check_folder(flag: str, folder: Path) -> None:
    """Refuse a folder that is none, or cannot be made. One that is there already may be read-only.

    Raises:
        ConfigError: naming the flag and what is in the way.
    """
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    except OSError as error:  # a name that is too long, a parent that may not be looked into
        raise ConfigError(f"--{flag} {folder}: cannot be made: {error.strerror}") from error
    if not there.is_dir():
        raise ConfigError(f"--{flag} {folder}: {there} is a file, expected a folder or nothing")
    if there != folder and not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"--{flag} {folder}: {there} cannot be written to.\n  Choose another folder.")
