"""Checks and look-ups for the files and folders that a user names."""

__all__ = [
    "MERGE_REPORT",
    "REPORTS",
    "RESULTS",
    "WEIGHTS",
    "check_folder",
    "files_fingerprint",
    "find_output",
    "similar_path",
]

import hashlib
import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from dpo.errors import ConfigError

RESULTS = "train_results.json"
"""Written last, so an output_dir that contains this file is a finished run."""
REPORTS = (
    "data_report.json",
    "eval_results.json",
    "manifest.json",
    "resolved_config.yaml",
    "sample_answers.json",
    "train_results.json",
    "trainer_state.json",
)
"""Names of all reports that a run can write."""
MERGE_REPORT = "merge_report.json"
"""Report in the folder of a merged model."""
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
"""File names of a saved model's weights."""


def check_folder(flag: str, folder: Path) -> None:
    """Check that a path is a folder or that the folder can be created. An existing folder may be read-only.

    Raises:
        ConfigError: if a file is in the way, or the folder cannot be created.
    """
    try:
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    except OSError as error:  # for example, the name is too long or a parent folder is not readable
        raise ConfigError(f"--{flag} {folder}: the folder cannot be created: {error.strerror}") from error
    if not existing.is_dir():
        raise ConfigError(f"--{flag} {folder}: {existing} is a file, expected a folder or a new path.")
    if existing != folder and not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"--{flag} {folder}: no permission to write to {existing}.\n  Choose another folder.")


def files_fingerprint(files: Iterable[Path]) -> str:
    """Return a hash of the names, sizes and modification times of files. It changes if a file may have changed."""
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()


def find_output(text: str, outputs: Iterable[str], *, in_folder: bool = False) -> str | None:
    """Return the first output that a model name or a source's location refers to, or None.

    A text refers to an output if it is that path or a path inside it: "./rows/a.jsonl:train@0.5" refers to "rows".

    Args:
        text: A model name or a source's location, as the user wrote it.
        outputs: Paths of files and folders, which may not exist yet.
        in_folder: Whether the path of a folder that contains an output counts too. Use it for texts that stand for all
            files of a folder.
    """
    ends = [match.start() for match in re.finditer("[:@]|$", text)]  # a :split and a @fraction may follow the path
    places = [place_of(text[:end]) for end in ends if end]
    for output in outputs:
        made = place_of(output)
        if any(place.is_relative_to(made) or (in_folder and made.is_relative_to(place)) for place in places):
            return output
    return None


def similar_path(path: str | Path) -> str:
    """Return " Did you mean PATH?" with the most similar name in the folder of a missing path, or ""."""
    path = Path(path)
    try:
        names = [] if path.exists() else [file.name for file in path.parent.iterdir()]
    except OSError:
        names = []
    near = get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f" Did you mean {path.parent / near[0]}?" if near else ""


def place_of(path: str) -> Path:
    return Path(os.path.realpath(Path(path).expanduser()))
