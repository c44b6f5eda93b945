"""Where raw rows come from: a file, a folder of files, or the Hub."""

__all__ = ["Source", "check_sources", "coming_output", "count_rows", "open_source", "parse_source"]

import csv
import itertools
import json
import random
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dpo.adapters import get_adapter
from dpo.adapters.base import Adapter
from dpo.errors import SourceError
from dpo.folders import files_fingerprint, find_output, similar_path

FORMATS = (".json", ".jsonl", ".csv", ".parquet")
NUM_SCHEMA_ROWS = 100
"""A column that none of the first rows has is taken to be missing from the whole source."""
SAMPLING_BLOCK = 100
"""Rows among which a fraction is drawn. The share is exact over every full block."""

csv.field_size_limit(sys.maxsize)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One entry of --datasets, resolved."""

    spec: str
    """As the user wrote it; the source's name in every report."""
    adapter: Adapter
    files: tuple[Path, ...] = ()
    """Local files, sorted. Empty for a Hub data set."""
    hub_id: str | None = None
    split: str | None = None
    fraction: float = 1.0
    """Share of the rows to use, in (0, 1]."""

    def fingerprint(self) -> str:
        """Changes when the rows may have: sizes and times of local files, or the Hub's own fingerprint."""
        if self.hub_id is not None:
            return f"{self.hub_id}:{self.split}:{load_hub_dataset(self.hub_id, self.split)._fingerprint}"
        return files_fingerprint(self.files)

    def is_sampled(self, row_number: int, seed: int) -> bool:
        """Whether the fraction takes this row: its share of every full block of rows, drawn by the seed."""
        if self.fraction == 1:
            return True
        block, place = divmod(row_number, SAMPLING_BLOCK)
        turn = block * SAMPLING_BLOCK + shuffled_block(f"{seed}:{self.spec}:{block}")[place]
        share = Fraction(str(self.fraction))  # the decimal that was written: 100 * 0.29 is 28.999... as a float
        return int((turn + 1) * share) > int(turn * share)


@lru_cache(maxsize=1)
def shuffled_block(seed: str) -> list[int]:
    return random.Random(seed).sample(range(SAMPLING_BLOCK), SAMPLING_BLOCK)


def parse_source(spec: str, adapter_files: tuple[Path, ...] = ()) -> Source:
    """Read ADAPTER[=SOURCE][:SPLIT][@FRACTION].

    Args:
        spec: "nectar", "ultrafeedback=rows.parquet", "triplets=org/name:train", "orca_dpo_pairs@0.5".
        adapter_files: Adapters elsewhere, which the spec may name.

    Raises:
        AdapterError: there is no such adapter.
        SourceError: the file is missing or of no known kind, or the fraction is not in (0, 1].
    """
    rest, _, fraction_text = spec.rpartition("@")
    fraction = 1.0
    if rest and re.fullmatch(r"[\d.eE+-]+", fraction_text):
        try:
            fraction = float(fraction_text)
        except ValueError:
            fraction = 0.0
        if not 0 < fraction <= 1:
            raise SourceError(f"{spec}: the fraction after '@' is '{fraction_text}', expected a number in (0, 1]")
    else:
        rest = spec
    name, equals, location = rest.partition("=")
    if not equals and ("/" in name or name.endswith(FORMATS)):
        raise SourceError(
            f"{spec}: a file, folder or Hub id needs the adapter that reads it.\n"
            f"  Write ADAPTER={spec}; `python -m dpo adapters` lists them."
        )
    if not equals:
        name, _, split = name.partition(":")
        adapter = get_adapter(name, adapter_files)
        if adapter.hub_id is None:
            raise SourceError(
                f"{spec}: '{name}' is a format and no data set.\n  Name the rows: {name}=path/to/rows.jsonl"
            )
        return Source(
            spec=spec, adapter=adapter, hub_id=adapter.hub_id, split=split or adapter.split, fraction=fraction
        )
    adapter = get_adapter(name, adapter_files)
    if location and Path(location).exists():
        return Source(spec=spec, adapter=adapter, files=list_files(Path(location)), fraction=fraction)
    folder, _, split = location.rpartition(":")
    if folder and Path(folder).is_dir():
        return Source(spec=spec, adapter=adapter, files=list_files(Path(folder), split), fraction=fraction)
    hub_id, _, split = location.partition(":")
    if re.fullmatch(r"[\w-]+/[\w.-]+", hub_id) and not hub_id.endswith(FORMATS):
        return Source(spec=spec, adapter=adapter, hub_id=hub_id, split=split or adapter.split, fraction=fraction)
    raise SourceError(
        f"{spec}: there is no file or folder '{location}'.{similar_path(location)}\n"
        f"  Expected a file or folder of {', '.join(FORMATS)}, or a Hub id such as {adapter.hub_id or 'org/name'}."
    )


def check_sources(specs: Collection[str], adapter_files: tuple[Path, ...], coming: Collection[str]) -> None:
    """Refuse sources of which it can be seen that they could not be read, before anything is.

    Args:
        specs: As in --datasets.
        adapter_files: Adapters elsewhere, which the specs may name.
        coming: Files and folders that are made before the sources are read.

    Raises:
        DPOError: as parse_source.
    """
    for spec in specs:
        if coming_output(spec, coming) is None:
            parse_source(spec, adapter_files)
        else:
            get_adapter(spec.partition("=")[0], adapter_files)


def coming_output(spec: str, coming: Collection[str]) -> str | None:
    """Which of the files and folders that are yet to be made a source reads, where that is not there."""
    output = find_output(spec.partition("=")[2], coming, in_folder=True)
    return None if output is None or Path(output).expanduser().exists() else output


def list_files(path: Path, split: str = "") -> tuple[Path, ...]:
    """The files to read: the file itself, or those below the folder that have a known ending, sorted by name.

    Args:
        path: File or folder.
        split: Text that a file's name or its subfolder must hold, where a folder has several splits.
    """
    below = sorted(f for f in path.rglob("*") if f.suffix in FORMATS and split in str(f.relative_to(path)))
    files = (path,) if path.is_file() else tuple(below)
    if not files:
        named = f" with '{split}' in its name" if split else ""
        raise SourceError(f"{path}: the folder holds no {', '.join(FORMATS)} file{named}")
    if files[0].suffix not in FORMATS:
        raise SourceError(f"{path}: the ending '{path.suffix}' is not one of {', '.join(FORMATS)}")
    return files


def open_source(
    source: Source,
    column_names: Mapping[str, str] = MappingProxyType({}),
    *,
    pairs: bool = True,
    stream: bool = False,
) -> Iterator[tuple[int, Any]]:
    """Rows with their numbers, from 0, after the columns were checked.

    Args:
        source: What to read.
        column_names: For adapters whose columns the user names: which column stands for each.
        pairs: Whether each row is to have a rejected answer.
        stream: Whether to fetch a Hub data set as it is read, where a few rows are all that is wanted.

    Raises:
        SourceError: a file cannot be read, no row is there, or the adapter's columns are missing.
    """
    rows = read_hub(source, stream=stream) if source.hub_id is not None else read_files(source.files)
    first = list(itertools.islice(rows, NUM_SCHEMA_ROWS))
    if not first:
        raise SourceError(f"{source.spec}: the source holds no rows.\n  Check that it is the file you meant.")
    found = sorted({str(key) for row in first if isinstance(row, Mapping) for key in row})
    expected = source.adapter.columns_in(column_names, pairs=pairs)
    if missing := [column for column in expected if column not in found]:
        named = source.adapter.columns_are_named
        way_out = f"\n  Name them: --column_{source.adapter.columns[0]} NAME and so on." if named else ""
        if missing == ["rejected"] and source.adapter.rejected_is_optional:
            way_out += "\n  Rows of one answer, without a worse one, are trained on with --stage sft."
        raise SourceError(
            f"{source.spec}: the rows lack {', '.join(missing)}.\n"
            f"  expected by '{source.adapter.name}': {', '.join(expected)}\n"
            f"  found: {', '.join(found) or 'rows that are no objects'}{way_out}"
        )
    yield from enumerate(itertools.chain(first, rows))


def count_rows(source: Source, *, stream: bool = False) -> int | None:
    """How many rows a source has, without decoding them where that can be done; None where the Hub does not say."""
    if source.hub_id is not None:
        splits = load_hub_dataset(source.hub_id, source.split, stream=stream).info.splits or {}
        return splits[source.split].num_examples if source.split in splits else None
    total = 0
    for file in source.files:
        if file.suffix == ".jsonl":
            with file.open("rb") as lines:
                total += sum(1 for line in lines if line.strip())
        elif file.suffix == ".parquet":
            import pyarrow.parquet

            total += pyarrow.parquet.ParquetFile(file).metadata.num_rows
        else:
            total += sum(1 for _ in read_files((file,)))
    return total


def read_files(files: tuple[Path, ...]) -> Iterator[Any]:
    readers = {".json": read_json, ".jsonl": read_json, ".csv": read_csv, ".parquet": read_parquet}
    for file in files:
        try:
            yield from readers[file.suffix](file)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise SourceError(f"{file}: cannot be read: {error}") from error


def read_json(file: Path) -> Iterator[Any]:
    """A JSON array, or one JSON value a line."""
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
            "  Expected one JSON object a line, or one array of objects."
        ) from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise SourceError(f"{file}, line {first_line}: JSON that cannot be read as a row: {error}") from error


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
        raise SourceError(f"{file}: no readable Parquet: {error}") from error


def read_hub(source: Source, *, stream: bool) -> Iterator[dict[str, Any]]:
    assert source.hub_id is not None
    yield from load_hub_dataset(source.hub_id, source.split, stream=stream)


def load_hub_dataset(hub_id: str, split: str | None, *, stream: bool = False) -> Any:
    """A split of a data set on the Hub: streamed, or downloaded once and read from the datasets library's cache."""
    import datasets

    try:
        return datasets.load_dataset(hub_id, split=split, streaming=stream)
    except Exception as error:  # whatever the Hub, the network or the cache say, the user's way out is the same
        raise SourceError(
            f"the Hub data set '{hub_id}', split '{split}', cannot be loaded: {type(error).__name__}: {error}\n"
            "  Check the network and the name, or pass a local copy: ADAPTER=path/to/rows.jsonl"
        ) from error
