"""Tests of the sharegpt adapter: turns with from and value."""

from dpo.records import Preference
from tests.adapters.rows import convert, reasons
from tests.builders import assistant, system, user


def turn(speaker: str, text: str) -> dict[str, str]:
    return {"from": speaker, "value": text}


ROW = {
    "conversations": [turn("human", "Hi!"), turn("gpt", "Hello."), turn("human", "Name a noble gas.")],
    "chosen": turn("gpt", "Neon."),
    "rejected": turn("gpt", "Oxygen."),
}


def test_turns_become_messages() -> None:
    assert convert("sharegpt", ROW) == [
        Preference(
            prompt=(user("Hi!"), assistant("Hello."), user("Name a noble gas.")), chosen="Neon.", rejected="Oxygen."
        )
    ]


def test_the_system_message_may_be_a_column_or_a_turn() -> None:
    in_column = convert("sharegpt", ROW | {"system": "Be brief."})
    in_turns = convert("sharegpt", ROW | {"conversations": [turn("system", "Be brief."), *ROW["conversations"]]})
    assert in_column == in_turns
    assert in_column[0].prompt[0] == system("Be brief.")  # type: ignore[union-attr]


def test_a_row_with_turns_of_tools_is_an_unknown_role() -> None:
    turns = [turn("human", "2 + 2?"), turn("function_call", "{}"), turn("observation", "4")]
    assert reasons("sharegpt", ROW | {"conversations": turns}) == ["unknown_role"]


def test_an_answer_by_the_human_is_a_malformed_row() -> None:
    assert reasons("sharegpt", ROW | {"rejected": turn("human", "Oxygen.")}) == ["malformed_row"]
