"""Tests of the alpaca adapter: an instruction, sometimes with an input."""

import pytest

from tests.adapters.rows import convert, reasons
from tests.builders import instruction

ROW = {"instruction": "Name the gas.", "input": "Ne", "output": "Neon.", "text": "Below is an instruction ..."}


def test_the_input_follows_the_instruction() -> None:
    assert convert("alpaca", ROW) == [instruction("Name the gas.\n\nNe", "Neon.")]


@pytest.mark.parametrize("nothing", ["", " ", None])
def test_without_an_input_the_prompt_is_the_instruction(nothing: str | None) -> None:
    assert convert("alpaca", ROW | {"input": nothing}) == [instruction("Name the gas.", "Neon.")]


def test_a_file_may_lack_the_input_column() -> None:
    row = {"instruction": "Name a noble gas.", "output": "Neon."}
    assert convert("alpaca", row) == [instruction("Name a noble gas.", "Neon.")]


@pytest.mark.parametrize("column", ["instruction", "input", "output"])
def test_a_column_without_text_is_a_malformed_row(column: str) -> None:
    assert reasons("alpaca", ROW | {column: 3}) == ["malformed_row"]
