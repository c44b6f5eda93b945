"""Tests of dpo.records: the record that passes through the stages, and Drop."""

import pytest
from pydantic import ValidationError

from dpo.records import Drop, Message, Preference
from tests.builders import assistant, instruction, pair, system, user


def test_a_prompt_of_several_turns_is_kept_in_order() -> None:
    prompt = (system("Be brief."), user("Hi!"), assistant("Hello."), user("2 + 2?"))
    record = Preference(prompt=prompt, chosen="4", rejected="5")
    assert [message.role for message in record.prompt] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("prompt", [(assistant("Hello."),), (system("Be brief."),), (user("Hi!"), assistant("Hello."))])
def test_a_prompt_that_does_not_end_in_a_user_turn_is_refused(prompt: tuple[Message, ...]) -> None:
    with pytest.raises(ValidationError, match=r"must end in a user turn, found a turn of '(assistant|system)'"):
        Preference(prompt=prompt, chosen="a", rejected="b")


def test_an_empty_prompt_is_refused_as_too_short() -> None:
    with pytest.raises(ValidationError) as refusal:
        Preference(prompt=(), chosen="a", rejected="b")
    assert [error["type"] for error in refusal.value.errors()] == ["too_short"]


@pytest.mark.parametrize("role", ["tool", "User", "", None, 3])
def test_a_role_other_than_the_three_is_refused(role: object) -> None:
    with pytest.raises(ValidationError):
        Message.model_validate({"role": role, "content": "Hi!"})


@pytest.mark.parametrize("content", [None, 3, ["Hi!"], b"Hi!", {"text": "Hi!"}])
def test_content_that_is_not_text_is_refused_rather_than_converted(content: object) -> None:
    with pytest.raises(ValidationError):
        Message.model_validate({"role": "user", "content": content})


def test_keys_of_a_message_beside_role_and_content_are_left_out() -> None:
    message = Message.model_validate({"role": "user", "content": "Hi!", "name": "Ann", "weight": 1})
    assert message.model_dump() == {"role": "user", "content": "Hi!"}


def test_an_instruction_row_has_one_answer_and_a_pair_two() -> None:
    assert (instruction().rejected, instruction().answers) == (None, ("Neon.",))
    assert pair().answers == ("Neon.", "Oxygen.")


def test_a_preference_takes_no_field_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        pair(winner="a")


def test_records_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        pair().chosen = "Argon."
    with pytest.raises(ValidationError, match="frozen"):
        user("Hi!").content = "Bye!"


def test_a_drop_is_raised_with_its_reason_and_detail() -> None:
    with pytest.raises(Drop) as caught:
        raise Drop("tie", "both scores are 3")
    assert (caught.value.reason, caught.value.detail) == ("tie", "both scores are 3")
    assert Drop("tie").detail == ""


def test_a_detail_with_invalid_unicode_can_be_written() -> None:
    assert Drop("outvoted", "found \ud83d, ½").detail == "found \\ud83d, ½"
