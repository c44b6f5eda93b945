"""Tests of the ultrachat adapter: conversations of several turns."""

from dpo.adapters import get_adapter
from dpo.records import Preference
from tests.adapters.rows import convert, reasons
from tests.builders import assistant, instruction, user

TURNS = [("user", "Hi!"), ("assistant", "Hello."), ("user", "2 + 2?"), ("assistant", "4"), ("user", "Thanks.")]
ROW = {"prompt": "Hi!", "prompt_id": "9f", "messages": [{"content": text, "role": role} for role, text in TURNS]}


def test_the_answer_is_the_last_assistant_turn_or_each_with_turns_all() -> None:
    first = instruction("Hi!", "Hello.")
    second = Preference(prompt=(user("Hi!"), assistant("Hello."), user("2 + 2?")), chosen="4")
    assert convert("ultrachat", ROW) == [second]
    assert convert("ultrachat", ROW, stage="sft", turns="all") == [first, second]


def test_a_row_without_messages_is_malformed() -> None:
    assert reasons("ultrachat", {"prompt": "Hi!", "prompt_id": "9f"}) == ["malformed_row"]


def test_the_default_split_is_the_one_for_training() -> None:
    assert get_adapter("ultrachat").split == "train_sft"
