"""The rows of a source, numbered, after its columns were checked."""

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
"""A column that none of the first rows has is taken to be missing from the whole source."""


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
    return sum(map(count_file_rows, source.files))


def read_hub(source: Source, *, stream: bool) -> Iterator[dict[str, Any]]:
    assert source.hub_id is not None
    yield from load_hub_dataset(source.hub_id, source.split, stream=stream)
