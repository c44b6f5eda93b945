"""HH-RLHF: two whole conversations that part at the last answer."""

import pytest

from dpo.records import Preference
from tests.adapters.rows import convert, detail, reasons
from tests.builders import assistant, pair, user

BEFORE = "\n\nHuman: Hi!\n\nAssistant: Hello.\n\nHuman: Name a noble gas."


def row(chosen: str, rejected: str) -> dict[str, str]:
    return {"chosen": chosen, "rejected": rejected}


def test_the_prompt_is_what_both_conversations_hold_before_the_last_answer() -> None:
    (preference,) = convert("hh_rlhf", row(f"{BEFORE}\n\nAssistant: Neon.", f"{BEFORE}\n\nAssistant: Oxygen."))
    assert isinstance(preference, Preference)
    assert preference.prompt == (user("Hi!"), assistant("Hello."), user("Name a noble gas."))
    assert (preference.chosen, preference.rejected) == ("Neon.", "Oxygen.")


def test_answers_that_begin_alike_are_whole() -> None:
    """The common part is found by turns: a common prefix of the text would cut into the answers."""
    question = "\n\nHuman: Name a noble gas."
    answers = ("Neon is one.", "Neon is none.")
    assert convert("hh_rlhf", row(*(f"{question}\n\nAssistant: {answer}" for answer in answers))) == [
        pair("Name a noble gas.", *answers)
    ]


@pytest.mark.parametrize(
    "other",
    ["\n\nHuman: Hi!\n\nAssistant: Oxygen.", f"{BEFORE}!\n\nAssistant: Oxygen."],
    ids=["parts earlier", "another question"],
)
def test_conversations_that_part_before_the_last_answer_are_dropped(other: str) -> None:
    assert reasons("hh_rlhf", row(f"{BEFORE}\n\nAssistant: Neon.", other)) == ["prompts_differ"]


@pytest.mark.parametrize(
    "broken",
    [
        BEFORE,
        f"{BEFORE}\n\nHuman: Please.\n\nAssistant: Neon.",
        "\n\nAssistant: Neon.",
        f"{BEFORE}\n\nAssistant: a\n\nAssistant: b",
    ],
    ids=["Human has the last word", "two questions in a row", "no question", "two answers in a row"],
)
def test_a_conversation_without_turns_is_dropped(broken: str) -> None:
    assert reasons("hh_rlhf", row(broken, f"{BEFORE}\n\nAssistant: Oxygen.")) == ["malformed_prompt"]
    assert "'rejected'" in detail("hh_rlhf", row(f"{BEFORE}\n\nAssistant: Oxygen.", broken))


def test_an_empty_answer_is_left_to_the_filters() -> None:
    (preference,) = convert("hh_rlhf", row(f"{BEFORE}\n\nAssistant:", f"{BEFORE}\n\nAssistant: Oxygen."))
    assert isinstance(preference, Preference)
    assert preference.chosen == ""
