"""Files and folders that a user names."""

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
"""Written last: an output_dir that has it holds a finished run."""
REPORTS = (
    "data_report.json",
    "eval_results.json",
    "manifest.json",
    "resolved_config.yaml",
    "sample_answers.json",
    "train_results.json",
    "trainer_state.json",
)
"""Every report that a run may leave."""
MERGE_REPORT = "merge_report.json"
"""What a merged model has beside it."""
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
"""What a saved model's weights are called."""


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


def files_fingerprint(files: Iterable[Path]) -> str:
    """Changes when files may have: a hash of their names, sizes and times."""
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()


def find_output(text: str, outputs: Iterable[str], *, in_folder: bool = False) -> str | None:
    """The first of several outputs that a model's name or a source's location names or lies in; None where none is.

    "./rows/a.jsonl:train@0.5" lies in "rows".

    Args:
        text: As the user wrote it.
        outputs: Files and folders, there or not.
        in_folder: Whether a folder that an output lies in counts too, as where all of its files are read.
    """
    ends = [match.start() for match in re.finditer("[:@]|$", text)]  # a :split and a @fraction may follow the path
    places = [place_of(text[:end]) for end in ends if end]
    for output in outputs:
        made = place_of(output)
        if any(place.is_relative_to(made) or (in_folder and made.is_relative_to(place)) for place in places):
            return output
    return None


def similar_path(path: str | Path) -> str:
    """What to add to an error about a path that leads nowhere: what in its folder is called like it, if anything is."""
    path = Path(path)
    try:
        names = [] if path.exists() else [file.name for file in path.parent.iterdir()]
    except OSError:
        names = []
    near = get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f" Did you mean {path.parent / near[0]}?" if near else ""


def place_of(path: str) -> Path:
    return Path(os.path.realpath(Path(path).expanduser()))
