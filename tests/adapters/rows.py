"""Helpers that convert rows with an adapter in the same way as the pipeline."""

from typing import Any

from dpo.adapters import get_adapter
from dpo.data.conversion import convert_row
from dpo.records import Drop, Preference
from tests.builders import data_config


def convert(name: str, row: Any, **options: Any) -> list[Preference | Drop]:
    return convert_row(row, get_adapter(name), data_config(**options).adapter_options())


def reasons(name: str, row: Any, **options: Any) -> list[str | Preference]:
    """Return what an adapter returns for a row, with each drop replaced by its reason."""
    return [
        candidate.reason if isinstance(candidate, Drop) else candidate for candidate in convert(name, row, **options)
    ]


def detail(name: str, row: Any) -> str:
    """Return the detail of the only drop that an adapter returns for a row."""
    (drop,) = convert(name, row)
    assert isinstance(drop, Drop)
    return drop.detail
