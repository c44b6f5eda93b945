"""Tests of the messages adapter: conversations in OpenAI's fine-tuning format."""

from typing import Any

import pytest

from dpo.records import Preference
from tests.adapters.rows import convert, reasons
from tests.builders import assistant, instruction, system, user

USER = {"role": "user", "content": "Name a noble gas."}
ASSISTANT: dict[str, Any] = {"role": "assistant", "content": "Neon."}


def test_the_answer_is_the_last_assistant_turn_or_each_with_turns_all() -> None:
    again = {"role": "user", "content": "Another?"}
    row = {"messages": [{"role": "system", "content": "Be brief."}, USER, ASSISTANT, again, ASSISTANT]}
    prompt = (system("Be brief."), user("Name a noble gas."))
    last = Preference(prompt=(*prompt, assistant("Neon."), user("Another?")), chosen="Neon.")
    assert convert("messages", row) == [last]
    assert convert("messages", row, stage="sft", turns="all") == [Preference(prompt=prompt, chosen="Neon."), last]


def test_an_answer_of_weight_0_is_not_trained_on() -> None:
    assert convert("messages", {"messages": [USER, ASSISTANT | {"weight": 1}, USER, ASSISTANT | {"weight": 0}]}) == [
        instruction()
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ASSISTANT], "tools": [{"type": "function"}]},
        {"messages": [USER, ASSISTANT], "functions": [{"name": "search"}]},
        {"messages": [USER, ASSISTANT | {"content": None, "tool_calls": [{"type": "function"}]}]},
        {"messages": [USER, ASSISTANT | {"function_call": {"name": "search"}}]},
    ],
    ids=["tools", "functions", "tool_calls", "function_call"],
)
def test_rows_with_tools_are_dropped_with_the_reason_tools(row: dict[str, Any]) -> None:
    assert reasons("messages", row) == ["tools"]


def test_empty_tool_fields_do_not_drop_a_row() -> None:
    row = {"messages": [USER, ASSISTANT | {"tool_calls": None}], "tools": []}
    assert convert("messages", row) == [instruction()]


def test_a_message_with_the_role_tool_is_an_unknown_role() -> None:
    assert reasons("messages", {"messages": [USER, {"role": "tool", "content": "4"}, ASSISTANT]}) == ["unknown_role"]
