"""Opening of a source: its columns are checked, then its rows are numbered."""

__all__ = ["count_rows", "open_source"]

import itertools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from dpo.data.reading.files import count_file_rows, read_files
from dpo.data.reading.hub import load_hub_dataset
from dpo.data.reading.source import Source
from dpo.errors import SourceError

NUM_SCHEMA_ROWS = 100
"""Rows in which the adapter's columns are looked for. A column that none of them has counts as missing."""


def open_source(
    source: Source,
    column_names: Mapping[str, str] = MappingProxyType({}),
    *,
    pairs: bool = True,
    stream: bool = False,
) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a source with their numbers, from 0, after a check of the columns.

    Args:
        source: The source to read.
        column_names: The user's column names, for an adapter whose columns can be renamed.
        pairs: Whether each row needs a rejected answer.
        stream: Whether to stream a Hub data set instead of downloading it. Useful if only a few rows are needed.

    Raises:
        SourceError: if a file cannot be read, there are no rows, or a column of the adapter is missing.
    """
    rows = read_hub(source, stream=stream) if source.hub_id is not None else read_files(source.files)
    first = list(itertools.islice(rows, NUM_SCHEMA_ROWS))
    if not first:
        raise SourceError(
            f"{source.spec}: the source contains no rows.\n  Check that it is the right file or data set."
        )
    found = sorted({str(key) for row in first if isinstance(row, Mapping) for key in row})
    expected = source.adapter.columns_in(column_names, pairs=pairs)
    if missing := [column for column in expected if column not in found]:
        named = source.adapter.columns_are_named
        advice = f"\n  Name the columns: --column_{source.adapter.columns[0]} NAME, and so on." if named else ""
        if missing == ["rejected"] and source.adapter.rejected_is_optional:
            advice += "\n  Pass --stage sft to train on rows that have only one answer."
        raise SourceError(
            f"{source.spec}: missing columns: {', '.join(missing)}.\n"
            f"  Expected by the adapter '{source.adapter.name}': {', '.join(expected)}\n"
            f"  Found: {', '.join(found) or 'rows that are not objects'}{advice}"
        )
    yield from enumerate(itertools.chain(first, rows))


def count_rows(source: Source, *, stream: bool = False) -> int | None:
    """Return the number of rows of a source, or None for a Hub data set that does not provide it.

    The rows of JSONL and Parquet files are not decoded.
    """
    if source.hub_id is not None:
        splits = load_hub_dataset(source.hub_id, source.split, stream=stream).info.splits or {}
        return splits[source.split].num_examples if source.split in splits else None
    return sum(map(count_file_rows, source.files))


def read_hub(source: Source, *, stream: bool) -> Iterator[dict[str, Any]]:
    assert source.hub_id is not None
    yield from load_hub_dataset(source.hub_id, source.split, stream=stream)
