"""Tests of the slim_orca adapter, which reads ShareGPT's conversations."""

from typing import Any

from dpo.records import Preference
from tests.adapters.rows import convert, reasons
from tests.builders import assistant, instruction, system, user


def turn(speaker: str, text: str, **more: Any) -> dict[str, Any]:
    return {"from": speaker, "value": text} | more


HUMAN, GPT = turn("human", "Name a noble gas.", weight=0), turn("gpt", "Neon.", weight=1)


def test_the_answer_is_the_last_gpt_turn() -> None:
    row = {"conversations": [turn("system", "Be brief.", weight=None), HUMAN, GPT]}
    assert convert("slim_orca", row) == [
        Preference(prompt=(system("Be brief."), user("Name a noble gas.")), chosen="Neon.")
    ]


def test_conversations_may_lack_weights_and_have_many_turns() -> None:
    row = {"conversations": [turn("human", "Hi!"), turn("gpt", "Hello."), turn("human", "2 + 2?"), turn("gpt", "4")]}
    second = Preference(prompt=(user("Hi!"), assistant("Hello."), user("2 + 2?")), chosen="4")
    assert convert("slim_orca", row) == [second]
    assert convert("slim_orca", row, stage="sft", turns="all") == [instruction("Hi!", "Hello."), second]


def test_an_answer_of_weight_0_is_not_trained_on() -> None:
    row = {"conversations": [HUMAN, GPT | {"weight": 0}, HUMAN, GPT | {"weight": 0.0}]}
    assert reasons("slim_orca", row) == ["no_answer"]
    row["conversations"][1]["weight"] = 1
    assert convert("slim_orca", row) == [instruction()]


def test_a_row_with_turns_of_tools_is_an_unknown_role() -> None:
    assert reasons("slim_orca", {"conversations": [HUMAN, turn("function_call", "{}"), GPT]}) == ["unknown_role"]
