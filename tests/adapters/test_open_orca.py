"""Tests of the open_orca adapter: a question with a system message, and an answer."""

import pytest

from dpo.records import Preference
from tests.adapters.rows import convert, reasons
from tests.builders import instruction, system, user

ROW = {"id": "flan.1", "system_prompt": "Be brief.", "question": "Name a noble gas.", "response": "Neon."}


def test_a_row_becomes_an_instruction_row() -> None:
    assert convert("open_orca", ROW) == [
        Preference(prompt=(system("Be brief."), user("Name a noble gas.")), chosen="Neon.")
    ]


@pytest.mark.parametrize("nothing", ["", None])
def test_an_empty_system_prompt_gives_no_system_message(nothing: str | None) -> None:
    assert convert("open_orca", ROW | {"system_prompt": nothing}) == [instruction()]


@pytest.mark.parametrize("column", ["system_prompt", "question", "response"])
def test_a_column_without_text_is_a_malformed_row(column: str) -> None:
    assert reasons("open_orca", ROW | {column: 3}) == ["malformed_row"]
