"""Tests of the ultrafeedback adapter: two conversations with the same prompt, and scores."""

import json
from typing import Any

import pytest

from dpo.records import Preference
from tests.adapters.rows import convert, detail, reasons
from tests.builders import assistant, system, user


def turns(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in pairs]


QUESTION = ("user", "Name a noble gas.")
ROW = {
    "prompt": "Name a noble gas.",
    "chosen": turns(QUESTION, ("assistant", "Neon.")),
    "rejected": turns(QUESTION, ("assistant", "Oxygen.")),
    "score_chosen": 8.5,
    "score_rejected": 3.0,
}


def converted(row: dict[str, Any]) -> Preference:
    (preference,) = convert("ultrafeedback", row)
    assert isinstance(preference, Preference)
    return preference


def test_the_prompt_is_the_turns_before_the_answers() -> None:
    before = (("system", "Be brief."), ("user", "Hi!"), ("assistant", "Hello."), QUESTION)
    row = ROW | {"chosen": turns(*before, ("assistant", "Neon.")), "rejected": turns(*before, ("assistant", "Iron."))}
    preference = converted(row)
    assert preference.prompt == (system("Be brief."), user("Hi!"), assistant("Hello."), user("Name a noble gas."))
    assert (preference.chosen, preference.rejected) == ("Neon.", "Iron.")


def test_the_prompt_is_read_from_the_conversation_and_not_from_the_prompt_column() -> None:
    assert converted(ROW | {"prompt": "Something else."}).prompt == (user("Name a noble gas."),)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [((8.5, 3.0), (8.5, 3.0)), ((8, 3), (8.0, 3.0)), (("8.5", "3"), (8.5, 3.0)), ((None, 3.0), (None, 3.0))],
)
def test_scores_are_read_as_numbers(scores: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    preference = converted(ROW | {"score_chosen": scores[0], "score_rejected": scores[1]})
    assert (preference.score_chosen, preference.score_rejected) == expected


@pytest.mark.parametrize("score", ["high", [], {}])
def test_a_score_that_is_not_a_number_is_a_malformed_row(score: Any) -> None:
    assert reasons("ultrafeedback", ROW | {"score_chosen": score}) == ["malformed_row"]
    assert detail("ultrafeedback", ROW | {"score_chosen": score}).startswith("score_chosen: ")


def test_conversations_of_different_prompts_are_dropped() -> None:
    other = ROW | {"rejected": turns(("user", "Name a metal."), ("assistant", "Iron."))}
    longer = ROW | {"rejected": turns(("system", "Be brief."), QUESTION, ("assistant", "Oxygen."))}
    assert reasons("ultrafeedback", other) == ["prompts_differ"]
    assert reasons("ultrafeedback", longer) == ["prompts_differ"]


@pytest.mark.parametrize("column", ["chosen", "rejected"])
@pytest.mark.parametrize(
    "conversation",
    [[], turns(QUESTION), turns(("assistant", "Neon."), QUESTION)],
    ids=["empty", "question", "turned around"],
)
def test_a_conversation_that_does_not_end_in_an_answer_is_a_malformed_row(column: str, conversation: Any) -> None:
    assert reasons("ultrafeedback", ROW | {column: conversation}) == ["malformed_row"]
    assert detail("ultrafeedback", ROW | {column: conversation}) == f"'{column}' does not end in an assistant turn"


@pytest.mark.parametrize("value", [None, "text", 3, ["Neon."], [None], {"role": "user", "content": "x"}])
def test_a_column_without_messages_is_a_malformed_row(value: Any) -> None:
    assert reasons("ultrafeedback", ROW | {"chosen": value}) == ["malformed_row"]


@pytest.mark.parametrize("message", [{"role": "user"}, {"role": "user", "content": None}, {"content": "x"}, {}])
def test_a_message_without_role_or_text_is_a_malformed_row(message: Any) -> None:
    assert reasons("ultrafeedback", ROW | {"chosen": [message, *turns(("assistant", "Neon."))]}) == ["malformed_row"]


@pytest.mark.parametrize("role", ["tool", "human", "User", ""])
def test_an_unknown_role_is_named_in_the_detail(role: str) -> None:
    row = ROW | {"chosen": turns((role, "Hi!"), ("assistant", "Neon."))}
    assert reasons("ultrafeedback", row) == ["unknown_role"]
    assert detail("ultrafeedback", row) == f"found the role '{role}', expected system, user or assistant"


def test_conversations_of_only_an_answer_are_an_empty_prompt() -> None:
    answers = {"chosen": turns(("assistant", "Neon.")), "rejected": turns(("assistant", "Iron."))}
    assert reasons("ultrafeedback", ROW | answers) == ["empty_prompt"]


def test_two_assistant_turns_in_a_row_are_a_prompt_not_user() -> None:
    twice = turns(QUESTION, ("assistant", "Hm."), ("assistant", "Neon."))
    assert reasons("ultrafeedback", ROW | {"chosen": twice, "rejected": twice}) == ["prompt_not_user"]


@pytest.mark.parametrize("column", ["chosen", "rejected"])
def test_a_missing_conversation_is_a_malformed_row(column: str) -> None:
    row = {name: value for name, value in ROW.items() if name != column}
    assert reasons("ultrafeedback", row) == ["malformed_row"]


def test_missing_scores_are_none() -> None:
    preference = converted({"chosen": ROW["chosen"], "rejected": ROW["rejected"]})
    assert (preference.score_chosen, preference.score_rejected) == (None, None)


def test_conversations_and_scores_may_be_text_as_in_csv_files() -> None:
    row = {name: json.dumps(value) if name in ("chosen", "rejected") else str(value) for name, value in ROW.items()}
    assert converted(row) == converted(ROW)
