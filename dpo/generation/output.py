"""Pairs on disk, batch by batch: what a kill leaves is cut back to the last whole batch and gone on from.

    rows.jsonl           one pair a line
    rows.jsonl.progress  the settings, then a line for each finished batch, written once its pairs are on disk

The account that generate leaves in the end, rows.jsonl.report, is worked out from both and the sources.
A batch counts where its line in rows.jsonl.progress is whole; what stands in rows.jsonl beyond it is cut off.
"""

__all__ = ["BatchRecord", "Output", "open_output"]

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict

from dpo.errors import ConfigError, DataError
from dpo.records import Preference

OPENING = b'{"settings": '


class BatchRecord(BaseModel):
    """What became of a batch of prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: list[int]
    """The prompts' raw rows, in the order of the batch."""
    dropped: dict[int, tuple[str, str]]
    """By place in the batch: the reason and what was found."""
    num_tokens: int
    """Tokens that were generated."""


class Line(BatchRecord):
    """A record as it is written down."""

    end: int
    """Bytes of the pairs' file up to the batch's end."""


class Output:
    """A file of pairs that grows by whole batches. Made by open_output."""

    def __init__(self, pairs: IO[bytes], progress: IO[bytes], finished: list[BatchRecord]) -> None:
        self.pairs = pairs
        self.progress = progress
        self.finished = finished
        """The batches that were there when the file was opened."""
        self.is_empty = not finished

    def append(self, pairs: Iterable[Preference], record: BatchRecord) -> None:
        """Write a batch: the pairs first, then the record that makes them count."""
        lines = (json.dumps(pair.model_dump(exclude_none=True), ensure_ascii=False) + "\n" for pair in pairs)
        write(self.pairs, "".join(lines))
        line = Line(**record.model_dump(), end=self.pairs.tell())
        write(self.progress, line.model_dump_json() + "\n")
        self.is_empty = False


@contextmanager
def open_output(file: Path, settings: Mapping[str, Any], *, overwrite: bool) -> Iterator[Output]:
    """Open a file of pairs to go on with, or to begin. One in which no batch was finished is taken away in the end.

    Args:
        file: Where the pairs belong.
        settings: What the pairs depend on, by a name that the user knows. JSON.
        overwrite: Whether to begin anew in any case.

    Raises:
        ConfigError: the file is not generate's, was begun with other settings, or is being written to.
        DataError: the file is shorter than its progress says.
    """
    progress_file = file.with_name(f"{file.name}.progress")
    if file.exists() and not progress_file.exists():
        raise ConfigError(
            f"--output {file} exists, and no {progress_file.name} beside it: it is not generate's, and is left as it "
            "is.\n  Choose another file."
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    with open_file(progress_file, "a+b") as progress:
        lock(progress, file)
        begun_with, lines = read_progress(progress, progress_file)
        if lines and not overwrite:
            check_settings(file, begun_with, json.loads(json.dumps(settings)))
        else:
            file.with_name(f"{file.name}.report").unlink(missing_ok=True)  # of the pairs that go
            progress.truncate(0)
            write(progress, json.dumps({"settings": settings}) + "\n")
            lines = []
        end = lines[-1].end if lines else 0
        with open_file(file, "ab") as pairs:
            if pairs.tell() < end:
                raise DataError(
                    f"--output {file}: it has {pairs.tell():,} bytes, and {progress_file.name} says {end:,}.\n"
                    "  Something else changed it. Pass --overwrite to begin anew."
                )
            pairs.truncate(end)
            pairs.seek(end)
            output = Output(pairs, progress, [*lines])
            try:
                yield output
            finally:
                if output.is_empty:
                    file.unlink()
                    progress_file.unlink()


def open_file(file: Path, mode: str) -> IO[bytes]:
    try:
        return file.open(mode)
    except OSError as error:
        raise ConfigError(f"--output: {file} cannot be written: {error.strerror}.\n  Choose another file.") from error


def lock(progress: IO[bytes], file: Path) -> None:
    """Keep other processes out; the lock goes with the process, however it ends."""
    try:
        fcntl.flock(progress, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(f"--output {file}: another process is writing it.\n  Choose another file.") from error


def read_progress(progress: IO[bytes], name: Path) -> tuple[dict[str, Any], list[Line]]:
    """The settings and the finished batches, none of either in a new file. A line that is not whole is cut off."""
    progress.seek(0)
    content = progress.read()
    whole = content[: content.rfind(b"\n") + 1]
    first, *rest = whole.splitlines() or [b""]
    try:
        if not OPENING.startswith(content[: len(OPENING)]):
            raise ValueError(f"it begins with {content[: len(OPENING)]!r}")
        settings = json.loads(first)["settings"] if first else {}
        lines = [Line.model_validate_json(line) for line in rest]
    except (ValueError, LookupError, TypeError) as error:  # pydantic's errors are ValueErrors
        raise ConfigError(
            f"{name}: expected what generate writes beside its --output, found something else.\n"
            "  Choose another --output, or delete both files."
        ) from error
    progress.truncate(len(whole))
    return settings, lines


def check_settings(file: Path, begun_with: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings."""
    for name in dict.fromkeys([*settings, *begun_with]):
        before, now = begun_with.get(name), settings.get(name)
        if before != now:
            raise ConfigError(
                f"--output {file} was begun with other settings: {name} was {before}, and is {now}.\n"
                "  Pass what it was begun with to go on, --overwrite to begin anew, or another --output."
            )


def write(file: IO[bytes], text: str) -> None:
    """Append a text, and see to it that it is on disk."""
    file.write(text.encode())
    file.flush()
    os.fsync(file.fileno())
