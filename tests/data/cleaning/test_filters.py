"""Tests of dpo.data.cleaning.filters: every reason, its limit and its place in the order of reasons."""

import dataclasses
from typing import Any

import pytest

from dpo.data.cleaning.filters import check_encoded, check_pair
from dpo.records import Drop, Preference
from tests.builders import data_config, encoded, instruction, pair, system, user


def reason_of_pair(preference: Preference, **values: Any) -> str | None:
    drop = check_pair(preference, data_config(**values))
    assert drop is None or isinstance(drop, Drop)
    return drop.reason if drop else None


def reason_of_lengths(prompt: int, chosen: int, rejected: int, **bounds: int) -> str | None:
    drop = check_encoded(encoded(prompt, chosen, rejected), data_config(**bounds))
    return drop.reason if drop else None


@pytest.mark.parametrize(
    ("preference", "reason"),
    [
        (pair(), None),
        (pair(score_chosen=8.0, score_rejected=3.0), None),
        (pair(score_chosen=3.0, score_rejected=8.0), None),
        (pair(score_chosen=8.0), None),
        (pair(score_rejected=8.0), None),
        (pair(score_chosen=5.0, score_rejected=5.0), "tie"),
        (pair(score_chosen=0.0, score_rejected=0.0), "tie"),
        (pair(prompt=""), "empty_prompt"),
        (pair(prompt=" \n\t"), "empty_prompt"),
        (pair(chosen=""), "empty_chosen"),
        (pair(chosen="\u3000\n"), "empty_chosen"),
        (pair(rejected=""), "empty_rejected"),
        (pair(rejected="  "), "empty_rejected"),
        (pair(chosen="Neon.", rejected="Neon."), "identical"),
        (pair(chosen="Neon.", rejected="Neon. "), None),
        (pair(chosen="Neon.", rejected="neon."), None),
        (pair(prompt="Name a \ud800 gas."), "invalid_text"),
        (pair(chosen="Neon.\udfff"), "invalid_text"),
        (pair(rejected="\ud83d"), "invalid_text"),
    ],
)
def test_a_pair_is_dropped_because_of_its_texts_or_scores(preference: Preference, reason: str | None) -> None:
    assert reason_of_pair(preference) == reason


def test_only_the_last_turn_of_a_prompt_must_contain_text() -> None:
    assert reason_of_pair(Preference(prompt=(system(""), user("Hi!")), chosen="a", rejected="b")) is None
    assert reason_of_pair(Preference(prompt=(user("Hi!"), user(" ")), chosen="a", rejected="b")) == "empty_prompt"


def test_half_a_surrogate_pair_in_a_system_message_is_invalid_text() -> None:
    broken = Preference(prompt=(system("\ud83d"), user("Hi!")), chosen="a", rejected="b")
    assert reason_of_pair(broken) == "invalid_text"


def test_ties_are_kept_on_request() -> None:
    assert reason_of_pair(pair(score_chosen=5.0, score_rejected=5.0), keep_ties=True) is None
    same = pair(chosen="Neon.", rejected="Neon.", score_chosen=5.0, score_rejected=5.0)
    assert reason_of_pair(same, keep_ties=True) == "identical"


def test_the_first_of_several_reasons_is_returned() -> None:
    tie = {"score_chosen": 1.0, "score_rejected": 1.0}
    assert reason_of_pair(pair("\ud800", "", "", **tie)) == "invalid_text"
    assert reason_of_pair(pair("", "", "", **tie)) == "tie"
    assert reason_of_pair(pair("", "", "")) == "empty_prompt"
    assert reason_of_pair(pair("x", "", "")) == "empty_chosen"
    assert reason_of_pair(pair("x", "a", "")) == "empty_rejected"


def test_an_instruction_row_is_dropped_in_stage_dpo() -> None:
    assert reason_of_pair(instruction()) == "no_rejected"
    assert reason_of_pair(instruction("", "")) == "no_rejected"


@pytest.mark.parametrize(
    ("preference", "values", "reason"),
    [
        (instruction(), {}, None),
        (instruction(" "), {}, "empty_prompt"),
        (instruction(answer="\n"), {}, "empty_chosen"),
        (instruction(answer="Neon.\udfff"), {}, "invalid_text"),
        (instruction(answer="I'm sorry, but I can't help with that."), {}, None),
        (instruction(answer="I'm sorry, but I can't help with that."), {"drop_refusals": True}, "refusal"),
    ],
)
def test_in_stage_sft_the_only_answer_is_checked(
    preference: Preference, values: dict[str, Any], reason: str | None
) -> None:
    assert reason_of_pair(preference, stage="sft", **values) == reason


def test_the_detail_of_a_tie_contains_the_score() -> None:
    drop = check_pair(pair(score_chosen=5.0, score_rejected=5.0), data_config())
    assert drop is not None
    assert drop.detail == "both scores are 5.0"


@pytest.mark.parametrize(
    ("lengths", "bounds", "reason"),
    [
        ((60, 40, 10), {"max_length": 100}, None),
        ((60, 10, 40), {"max_length": 100}, None),
        ((60, 41, 10), {"max_length": 100}, "too_long"),
        ((60, 10, 41), {"max_length": 100}, "too_long"),
        ((61, 40, 40), {"max_length": 100}, "too_long"),
        ((50, 9, 9), {"max_length": 100, "max_prompt_length": 50}, None),
        ((51, 9, 9), {"max_length": 100, "max_prompt_length": 50}, "prompt_too_long"),
        ((9, 50, 1), {"max_length": 100, "max_target_length": 50}, None),
        ((9, 1, 50), {"max_length": 100, "max_target_length": 50}, None),
        ((9, 51, 1), {"max_length": 100, "max_target_length": 50}, "target_too_long"),
        ((9, 1, 51), {"max_length": 100, "max_target_length": 50}, "target_too_long"),
        ((60, 40, 0), {"max_length": 100}, None),
        ((60, 41, 0), {"max_length": 100}, "too_long"),
        ((9, 51, 0), {"max_length": 100, "max_target_length": 50}, "target_too_long"),
        ((1, 1, 1), {"max_length": 2, "max_prompt_length": 1, "max_target_length": 1}, None),
    ],
)
def test_a_limit_is_inclusive_and_one_more_token_is_dropped(
    lengths: tuple[int, int, int], bounds: dict[str, int], reason: str | None
) -> None:
    assert reason_of_lengths(*lengths, **bounds) == reason


def test_the_prompt_is_checked_first_and_the_whole_last() -> None:
    bounds = {"max_length": 100, "max_prompt_length": 50, "max_target_length": 50}
    assert reason_of_lengths(51, 51, 51, **bounds) == "prompt_too_long"
    assert reason_of_lengths(50, 51, 1, **bounds) == "target_too_long"
    assert reason_of_lengths(50, 50, 1, **bounds) is None
    assert reason_of_lengths(51, 50, 1, max_length=100, max_target_length=50) == "too_long"


def test_answers_with_equal_ids_are_identical_even_if_they_are_too_long() -> None:
    same = dataclasses.replace(encoded(60, 41, 41), rejected_ids=[2] * 41)
    drop = check_encoded(same, data_config(max_length=100))
    assert drop is not None
    assert drop.reason == "identical"


def test_the_detail_of_too_long_contains_both_numbers() -> None:
    drop = check_encoded(encoded(61, 40, 12), data_config(max_length=100))
    assert drop is not None
    assert drop.detail == "prompt and longer answer have 61 + 40 tokens, above --max_length 100"
