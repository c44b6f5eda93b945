"""Every adapter that is found keeps its contract: a raw row in its docstring, examples that come true."""

import re
import sys

import pytest

from dpo.adapters import find_adapters
from dpo.adapters.base import Adapter, AdapterOptions, Example
from dpo.records import Drop, Preference

ADAPTERS = find_adapters()


def outcome(candidates: object) -> list[object]:
    """Preferences as they are, and drops by their reason."""
    return [candidate.reason if isinstance(candidate, Drop) else candidate for candidate in candidates]  # type: ignore[attr-defined]


def convert(adapter: Adapter, row: object) -> list[object]:
    try:
        return outcome(adapter.convert(row, AdapterOptions()))  # type: ignore[arg-type]
    except Drop as drop:
        return [drop.reason]


def test_the_four_adapters_are_found_in_alphabetical_order() -> None:
    assert list(ADAPTERS) == sorted(ADAPTERS)
    assert {"nectar", "orca_dpo_pairs", "triplets", "ultrafeedback"} <= set(ADAPTERS)


@pytest.mark.parametrize(
    ("adapter", "example"),
    [
        pytest.param(adapter, example, id=f"{name}-{number}")
        for name, adapter in ADAPTERS.items()
        for number, example in enumerate(adapter.examples)
    ],
)
def test_an_example_gives_what_it_says(adapter: Adapter, example: Example) -> None:
    row, expected = example
    assert convert(adapter, row) == outcome(expected)


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
class TestEveryAdapter:
    def test_its_examples_hold_a_preference(self, adapter: Adapter) -> None:
        _, expected = adapter.examples[0]
        assert any(isinstance(candidate, Preference) for candidate in expected)

    def test_its_columns_are_in_the_first_example(self, adapter: Adapter) -> None:
        row, _ = adapter.examples[0]
        assert adapter.columns
        assert set(adapter.columns) <= set(row)

    def test_its_docstring_shows_a_raw_row_with_every_column(self, adapter: Adapter) -> None:
        docstring = sys.modules[adapter.convert.__module__].__doc__
        assert docstring is not None
        assert re.search(r"^Raw rows?\b|^A raw row:", docstring, re.MULTILINE)
        shown = docstring[docstring.index("{") : docstring.rindex("}")]
        assert [column for column in adapter.columns if f'"{column}":' not in shown] == []

    def test_its_docstring_names_the_data_set(self, adapter: Adapter) -> None:
        docstring = sys.modules[adapter.convert.__module__].__doc__ or ""
        assert docstring.startswith((f"{adapter.hub_id}: ", "Rows that are formed already"))

    def test_it_has_a_hub_id_and_a_split_to_fall_back_on(self, adapter: Adapter) -> None:
        assert re.fullmatch(r"[\w-]+/[\w.-]+", adapter.hub_id)
        assert adapter.split

    def test_it_leaves_the_row_as_it_was(self, adapter: Adapter) -> None:
        for row, _ in adapter.examples:
            before = repr(row)
            convert(adapter, row)
            assert repr(row) == before
