"""Tests of the hh_rlhf adapter: two whole conversations that differ in the last answer."""

import pytest

from dpo.records import Preference
from tests.adapters.rows import convert, detail, reasons
from tests.builders import assistant, pair, user

BEFORE = "\n\nHuman: Hi!\n\nAssistant: Hello.\n\nHuman: Name a noble gas."


def row(chosen: str, rejected: str) -> dict[str, str]:
    return {"chosen": chosen, "rejected": rejected}


def test_the_prompt_is_the_turns_before_the_last_answer() -> None:
    (preference,) = convert("hh_rlhf", row(f"{BEFORE}\n\nAssistant: Neon.", f"{BEFORE}\n\nAssistant: Oxygen."))
    assert isinstance(preference, Preference)
    assert preference.prompt == (user("Hi!"), assistant("Hello."), user("Name a noble gas."))
    assert (preference.chosen, preference.rejected) == ("Neon.", "Oxygen.")


def test_answers_with_a_common_beginning_are_not_cut() -> None:
    """The prompt is found by turns, because a common prefix of the text could include parts of the answers."""
    question = "\n\nHuman: Name a noble gas."
    answers = ("Neon is one.", "Neon is none.")
    assert convert("hh_rlhf", row(*(f"{question}\n\nAssistant: {answer}" for answer in answers))) == [
        pair("Name a noble gas.", *answers)
    ]


@pytest.mark.parametrize(
    "other",
    ["\n\nHuman: Hi!\n\nAssistant: Oxygen.", f"{BEFORE}!\n\nAssistant: Oxygen."],
    ids=["fewer turns", "another question"],
)
def test_conversations_that_differ_before_the_last_answer_are_dropped(other: str) -> None:
    assert reasons("hh_rlhf", row(f"{BEFORE}\n\nAssistant: Neon.", other)) == ["prompts_differ"]


@pytest.mark.parametrize(
    "broken",
    [
        BEFORE,
        f"{BEFORE}\n\nHuman: Please.\n\nAssistant: Neon.",
        "\n\nAssistant: Neon.",
        f"{BEFORE}\n\nAssistant: a\n\nAssistant: b",
    ],
    ids=["last turn is Human's", "two questions in a row", "no question", "two answers in a row"],
)
def test_a_conversation_without_alternating_turns_is_dropped(broken: str) -> None:
    assert reasons("hh_rlhf", row(broken, f"{BEFORE}\n\nAssistant: Oxygen.")) == ["malformed_prompt"]
    assert "'rejected'" in detail("hh_rlhf", row(f"{BEFORE}\n\nAssistant: Oxygen.", broken))


def test_an_empty_answer_is_left_to_the_filters() -> None:
    (preference,) = convert("hh_rlhf", row(f"{BEFORE}\n\nAssistant:", f"{BEFORE}\n\nAssistant: Oxygen."))
    assert isinstance(preference, Preference)
    assert preference.chosen == ""
