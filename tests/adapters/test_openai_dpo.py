"""OpenAI's file format: a conversation and two answers."""

from dpo.records import Preference
from tests.adapters.rows import convert, reasons
from tests.builders import system, user

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a noble gas."}]
ROW = {
    "input": {"messages": MESSAGES},
    "preferred_output": [{"role": "assistant", "content": "Neon."}],
    "non_preferred_output": [{"role": "assistant", "content": "Oxygen."}],
}


def test_the_conversation_is_the_prompt() -> None:
    assert convert("openai_dpo", ROW) == [
        Preference(prompt=(system("Be brief."), user("Name a noble gas.")), chosen="Neon.", rejected="Oxygen.")
    ]


def test_rows_with_tools_are_dropped_by_that_name() -> None:
    assert reasons("openai_dpo", ROW | {"input": {"messages": MESSAGES, "tools": [{"type": "function"}]}}) == ["tools"]
    assert len(convert("openai_dpo", ROW | {"input": {"messages": MESSAGES, "tools": []}})) == 1


def test_an_answer_that_calls_a_tool_beside_its_text_is_dropped_as_well() -> None:
    call = [{"role": "assistant", "content": "Let me see.", "tool_calls": [{"type": "function"}]}]
    assert reasons("openai_dpo", ROW | {"preferred_output": call}) == ["tools"]
