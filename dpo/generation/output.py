"""Writes pairs to disk batch by batch. After a kill, the file is cut back to the last finished batch and resumed.

    rows.jsonl           one pair per line
    rows.jsonl.progress  the settings, then one line per finished batch, written when the batch's pairs are on disk

At the end, `dpo generate` writes rows.jsonl.report, the data report, from both files and the sources.
A batch is finished if its line in rows.jsonl.progress is complete. Everything after it in rows.jsonl is cut off.
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
    """The result of a batch of prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: list[int]
    """Raw row number of each prompt, in the order of the batch."""
    dropped: dict[int, tuple[str, str]]
    """Reason and detail of each dropped prompt, by its place in the batch."""
    num_tokens: int
    """Number of generated tokens."""


class Line(BatchRecord):
    """A record as a line of the progress file."""

    end: int
    """Size of the pairs' file at the end of the batch, in bytes."""


class Output:
    """A file of pairs that grows by whole batches. open_output creates it."""

    def __init__(self, pairs: IO[bytes], progress: IO[bytes], finished: list[BatchRecord]) -> None:
        self.pairs = pairs
        self.progress = progress
        self.finished = finished
        """The batches that were finished when the file was opened."""
        self.is_empty = not finished

    def append(self, pairs: Iterable[Preference], record: BatchRecord) -> None:
        """Write a batch: first its pairs, then the record that marks it as finished."""
        lines = (json.dumps(pair.model_dump(exclude_none=True), ensure_ascii=False) + "\n" for pair in pairs)
        write(self.pairs, "".join(lines))
        line = Line(**record.model_dump(), end=self.pairs.tell())
        write(self.progress, line.model_dump_json() + "\n")
        self.is_empty = False


@contextmanager
def open_output(file: Path, settings: Mapping[str, Any], *, overwrite: bool) -> Iterator[Output]:
    """Open a file of pairs, to resume it or to start it. A file without a finished batch is deleted at the end.

    Args:
        file: File of the pairs.
        settings: What the pairs depend on, by names that the user knows. JSON values.
        overwrite: Whether to start the file again in any case.

    Raises:
        ConfigError: if another program made the file, it was started with other settings, or another process is
            writing to it.
        DataError: if the file is shorter than its progress file expects.
    """
    progress_file = file.with_name(f"{file.name}.progress")
    if file.exists() and not progress_file.exists():
        raise ConfigError(
            f"--output {file} exists without {progress_file.name}, so `dpo generate` did not write it. "
            "It was not changed.\n  Choose another file."
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    with open_file(progress_file, "a+b") as progress:
        lock(progress, file)
        begun_with, lines = read_progress(progress, progress_file)
        if lines and not overwrite:
            check_settings(file, begun_with, json.loads(json.dumps(settings)))
        else:
            file.with_name(f"{file.name}.report").unlink(missing_ok=True)  # the report of the pairs that are deleted
            progress.truncate(0)
            write(progress, json.dumps({"settings": settings}) + "\n")
            lines = []
        end = lines[-1].end if lines else 0
        with open_file(file, "ab") as pairs:
            if pairs.tell() < end:
                raise DataError(
                    f"--output {file} has {pairs.tell():,} bytes, but {progress_file.name} expects at least {end:,}.\n"
                    "  Another program changed the file. Pass --overwrite to start again."
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
        raise ConfigError(
            f"--output: {file} cannot be opened for writing: {error.strerror}.\n  Choose another file."
        ) from error


def lock(progress: IO[bytes], file: Path) -> None:
    """Keep other processes out. The lock ends with the process, even if the process is killed."""
    try:
        fcntl.flock(progress, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(f"--output {file}: another process is writing to it.\n  Choose another file.") from error


def read_progress(progress: IO[bytes], name: Path) -> tuple[dict[str, Any], list[Line]]:
    """Return the settings and the finished batches; both are empty for a new file. An incomplete line is cut off."""
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
            f"{name}: expected the progress file that `dpo generate` writes next to --output, found something else.\n"
            "  Choose another --output, or delete both files."
        ) from error
    progress.truncate(len(whole))
    return settings, lines


def check_settings(file: Path, earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse to resume a file with other settings."""
    for name in dict.fromkeys([*settings, *earlier]):
        before, now = earlier.get(name), settings.get(name)
        if before != now:
            raise ConfigError(
                f"--output {file} was started with other settings: {name} was {before}, and is now {now}.\n"
                "  Use the earlier settings to resume, pass --overwrite to start again, or choose another --output."
            )


def write(file: IO[bytes], text: str) -> None:
    """Append a text, and wait until it is on disk."""
    file.write(text.encode())
    file.flush()
    os.fsync(file.fileno())
