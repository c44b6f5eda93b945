"""Tests of the orca_dpo_pairs adapter: four columns of text."""

from typing import Any

import pytest

from dpo.records import Preference
from tests.adapters.rows import convert, detail, reasons
from tests.builders import system, user

ROW = {"system": "Be brief.", "question": "Capital of Peru?", "chosen": "Lima.", "rejected": "Cusco."}


def test_the_system_message_comes_before_the_question() -> None:
    assert convert("orca_dpo_pairs", ROW) == [
        Preference(prompt=(system("Be brief."), user("Capital of Peru?")), chosen="Lima.", rejected="Cusco.")
    ]


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_system_column_gives_no_system_message(empty: Any) -> None:
    (preference,) = convert("orca_dpo_pairs", ROW | {"system": empty})
    assert isinstance(preference, Preference)
    assert preference.prompt == (user("Capital of Peru?"),)


def test_other_columns_are_ignored() -> None:
    assert convert("orca_dpo_pairs", ROW | {"id": 7, "score": None}) == convert("orca_dpo_pairs", ROW)


def test_texts_are_kept_byte_for_byte() -> None:
    (preference,) = convert("orca_dpo_pairs", ROW | {"chosen": " \tLima.\r\n\n", "rejected": ""})
    assert isinstance(preference, Preference)
    assert (preference.chosen, preference.rejected) == (" \tLima.\r\n\n", "")


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [
        *((column, None, "NoneType") for column in ("question", "chosen", "rejected")),
        *((column, value, type(value).__name__) for column in ROW for value in (3, ["Lima."], b"Lima.", {}, False)),
    ],
)
def test_a_column_without_text_is_a_malformed_row(column: str, value: Any, kind: str) -> None:
    row = ROW | {column: value}
    assert reasons("orca_dpo_pairs", row) == ["malformed_row"]
    assert detail("orca_dpo_pairs", row) == f"column '{column}' contains {kind}, expected text"


@pytest.mark.parametrize("column", ROW)
def test_a_missing_column_is_a_malformed_row(column: str) -> None:
    row = {name: text for name, text in ROW.items() if name != column}
    assert reasons("orca_dpo_pairs", row) == ["malformed_row"]
    assert f"'{column}'" in detail("orca_dpo_pairs", row)


@pytest.mark.parametrize("row", [None, [], "text", 3, [ROW]])
def test_a_row_that_is_not_an_object_is_a_malformed_row(row: Any) -> None:
    assert reasons("orca_dpo_pairs", row) == ["malformed_row"]
    assert detail("orca_dpo_pairs", row) == f"expected an object, found {type(row).__name__}"
