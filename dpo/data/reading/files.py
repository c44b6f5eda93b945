"""Reading of rows from JSON, JSONL, CSV and Parquet files."""

__all__ = ["FORMATS", "count_file_rows", "read_files"]

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpo.errors import SourceError

FORMATS = (".json", ".jsonl", ".csv", ".parquet")

csv.field_size_limit(sys.maxsize)


def read_files(files: tuple[Path, ...]) -> Iterator[Any]:
    readers = {".json": read_json, ".jsonl": read_json, ".csv": read_csv, ".parquet": read_parquet}
    for file in files:
        try:
            yield from readers[file.suffix](file)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise SourceError(f"{file}: cannot be read: {error}") from error


def read_json(file: Path) -> Iterator[Any]:
    """Yield the items of a JSON array, or one JSON value for each line."""
    with file.open(encoding="utf-8-sig") as lines:
        start = lines.read(1024).lstrip()[:1]
        lines.seek(0)
        if start == "[":
            yield from decode(lines.read(), file, 1)
            return
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield decode(line.rstrip(), file, number)


def decode(text: str, file: Path, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        found = error.doc[error.pos : error.pos + 40]
        raise SourceError(
            f"{file}, line {line}, column {error.colno}: not valid JSON: {error.msg}, found {found!r}.\n"
            "  Expected one JSON object on each line, or one array of objects."
        ) from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number with thousands of digits
        raise SourceError(f"{file}, line {first_line}: the JSON cannot be read as a row: {error}") from error


def read_csv(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        yield from csv.DictReader(lines)


def read_parquet(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=1000):
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise SourceError(f"{file}: not a readable Parquet file: {error}") from error


def count_file_rows(file: Path) -> int:
    """Return the number of rows in a file, without decoding the rows of JSONL and Parquet files."""
    if file.suffix == ".jsonl":
        with file.open("rb") as lines:
            return sum(1 for line in lines if line.strip())
    if file.suffix == ".parquet":
        import pyarrow.parquet

        rows: int = pyarrow.parquet.ParquetFile(file).metadata.num_rows
        return rows
    return sum(1 for _ in read_files((file,)))
