"""Tests of the openai_dpo adapter: a conversation and two answers."""

from dpo.records import Preference
from tests.adapters.rows import convert, reasons
from tests.builders import system, user

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a noble gas."}]
ROW = {
    "input": {"messages": MESSAGES},
    "preferred_output": [{"role": "assistant", "content": "Neon."}],
    "non_preferred_output": [{"role": "assistant", "content": "Oxygen."}],
}


def test_the_conversation_becomes_the_prompt() -> None:
    assert convert("openai_dpo", ROW) == [
        Preference(prompt=(system("Be brief."), user("Name a noble gas.")), chosen="Neon.", rejected="Oxygen.")
    ]


def test_rows_with_tools_are_dropped_with_the_reason_tools() -> None:
    assert reasons("openai_dpo", ROW | {"input": {"messages": MESSAGES, "tools": [{"type": "function"}]}}) == ["tools"]
    assert len(convert("openai_dpo", ROW | {"input": {"messages": MESSAGES, "tools": []}})) == 1


def test_an_answer_with_text_and_a_tool_call_is_dropped_too() -> None:
    call = [{"role": "assistant", "content": "Let me see.", "tool_calls": [{"type": "function"}]}]
    assert reasons("openai_dpo", ROW | {"preferred_output": call}) == ["tools"]
