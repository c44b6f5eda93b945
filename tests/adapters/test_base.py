"""Tests of dpo.adapters.base: pairs from ranked answers, answers from conversations, and reading of columns."""

import random
from typing import Any

import pytest

from dpo.adapters.base import AdapterOptions, Pairing, Turns, answers_in, pair_ranked, read_messages, read_text
from dpo.records import Drop, Message, Preference
from tests.builders import assistant, instruction, system, user

PROMPT = [user("Name a noble gas.")]
# From best to worst: neon 9, argon 7, iron 4, water 1. The list is not in this order.
ANSWERS = [("iron", 4.0), ("neon", 9.0), ("water", 1.0), ("argon", 7.0)]


def pairs(
    pairing: Pairing, answers: list[tuple[str, float]] = ANSWERS, *, prompt: str = "Name a noble gas.", seed: int = 42
) -> list[tuple[str, str]]:
    found = pair_ranked([user(prompt)], answers, AdapterOptions(pairing=pairing, seed=seed))
    return [(preference.chosen, preference.rejected) for preference in found]


@pytest.mark.parametrize(
    ("pairing", "expected"),
    [
        ("best_worst", [("neon", "water")]),
        ("adjacent", [("neon", "argon"), ("argon", "iron"), ("iron", "water")]),
        (
            "all",
            [
                ("neon", "argon"),
                ("neon", "iron"),
                ("neon", "water"),
                ("argon", "iron"),
                ("argon", "water"),
                ("iron", "water"),
            ],
        ),
    ],
)
def test_answers_are_paired_from_best_to_worst(pairing: Pairing, expected: list[tuple[str, str]]) -> None:
    assert pairs(pairing) == expected


def test_a_pair_keeps_its_prompt_and_both_scores() -> None:
    prompt = [system("Be brief."), user("Hi!"), assistant("Hello."), user("Name a noble gas.")]
    (preference,) = pair_ranked(prompt, ANSWERS, AdapterOptions())
    assert preference.prompt == tuple(prompt)
    assert (preference.score_chosen, preference.score_rejected) == (9.0, 1.0)


def test_best_random_takes_the_best_and_one_below_it() -> None:
    found = [pairs("best_random", prompt=f"question {number}") for number in range(200)]
    assert {chosen for ((chosen, _),) in found} == {"neon"}
    assert {rejected for ((_, rejected),) in found} == {"argon", "iron", "water"}


def test_best_random_gives_the_same_for_the_same_seed() -> None:
    prompts = [f"question {number}" for number in range(50)]
    first = [pairs("best_random", prompt=prompt, seed=7) for prompt in prompts]
    assert [pairs("best_random", prompt=prompt, seed=7) for prompt in prompts] == first
    assert [pairs("best_random", prompt=prompt, seed=8) for prompt in prompts] != first


def test_best_random_depends_neither_on_other_rows_nor_on_the_order_of_the_answers() -> None:
    prompts = [f"question {number}" for number in range(50)]
    in_order = {prompt: pairs("best_random", prompt=prompt) for prompt in prompts}
    random.Random(0).shuffle(prompts)
    assert {prompt: pairs("best_random", ANSWERS[::-1], prompt=prompt) for prompt in prompts} == in_order


def test_best_random_skips_answers_that_share_the_best_score() -> None:
    answers = [("neon", 9.0), ("argon", 9.0), ("water", 1.0)]
    found = {pairs("best_random", answers, prompt=f"question {number}")[0] for number in range(50)}
    assert found == {("neon", "water")}


@pytest.mark.parametrize(("pairing", "num_pairs"), [("best_worst", 1), ("best_random", 1), ("adjacent", 2), ("all", 3)])
def test_answers_that_all_tie_are_paired_for_the_tie_filter_to_count(pairing: Pairing, num_pairs: int) -> None:
    found = pair_ranked(PROMPT, [("a", 5.0), ("b", 5.0), ("c", 5.0)], AdapterOptions(pairing=pairing))
    assert [(pair.score_chosen, pair.score_rejected) for pair in found] == [(5.0, 5.0)] * num_pairs


@pytest.mark.parametrize("pairing", ["best_worst", "best_random", "adjacent", "all"])
@pytest.mark.parametrize("answers", [[], [("neon", 9.0)]])
def test_fewer_than_two_answers_are_a_drop(pairing: Pairing, answers: list[tuple[str, float]]) -> None:
    with pytest.raises(Drop) as caught:
        pairs(pairing, answers)
    assert caught.value.reason == "too_few_answers"
    assert caught.value.detail == f"answers found: {len(answers)}, a pair needs 2"


@pytest.mark.parametrize("pairing", ["best_worst", "best_random", "adjacent", "all"])
def test_two_answers_are_one_pair(pairing: Pairing) -> None:
    assert pairs(pairing, [("water", 1.0), ("neon", 9.0)]) == [("neon", "water")]


def answers(turns: Turns, *messages: Message, untrained: tuple[int, ...] = ()) -> list[Preference | str]:
    """Return what answers_in yields, with each drop replaced by its reason."""
    found = answers_in(messages, AdapterOptions(turns=turns), untrained=untrained)
    return [candidate.reason if isinstance(candidate, Drop) else candidate for candidate in found]


RULE, HI, HELLO, ASK, NEON = (
    *(system("Be brief."), user("Hi!"), assistant("Hello.")),
    *(user("Name a noble gas."), assistant("Neon.")),
)
FIRST = Preference(prompt=(RULE, HI), chosen="Hello.")
SECOND = Preference(prompt=(RULE, HI, HELLO, ASK), chosen="Neon.")


def test_the_answer_is_the_last_assistant_turn_or_each_of_them() -> None:
    assert answers("last", RULE, HI, HELLO, ASK, NEON) == [SECOND]
    assert answers("all", RULE, HI, HELLO, ASK, NEON) == [FIRST, SECOND]


@pytest.mark.parametrize("turns", ["last", "all"])
def test_a_question_after_the_last_answer_is_left_out(turns: Turns) -> None:
    assert answers(turns, RULE, HI, HELLO, ASK) == [FIRST]


@pytest.mark.parametrize("turns", ["last", "all"])
def test_an_untrained_turn_is_used_only_in_prompts(turns: Turns) -> None:
    assert answers(turns, RULE, HI, HELLO, ASK, NEON, untrained=(2,)) == [SECOND]
    assert answers(turns, RULE, HI, HELLO, ASK, NEON, untrained=(0, 1, 4)) == [FIRST]


def test_each_answer_without_a_question_is_a_separate_drop() -> None:
    assert answers("all", HELLO, ASK, NEON) == ["empty_prompt", Preference(prompt=(HELLO, ASK), chosen="Neon.")]
    assert answers("all", RULE, HELLO, ASK, NEON)[0] == "prompt_not_user"
    assert answers("all", HI, HELLO, NEON) == [Preference(prompt=(HI,), chosen="Hello."), "prompt_not_user"]
    assert answers("last", HI, HELLO, NEON) == ["prompt_not_user"]


def test_an_empty_system_message_is_left_out() -> None:
    assert answers("last", system(""), ASK, NEON) == [instruction()]
    assert answers("all", system(""), NEON) == ["empty_prompt"]


@pytest.mark.parametrize("messages", [(), (ASK,), (RULE, ASK)])
def test_a_conversation_without_an_answer_is_a_drop(messages: tuple[Message, ...]) -> None:
    with pytest.raises(Drop) as caught:
        answers("all", *messages)
    assert caught.value.reason == "no_answer"


def test_text_is_read_unchanged() -> None:
    assert read_text({"a": " x\n"}, "a") == " x\n"
    assert read_text({"a": ""}, "a") == ""


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ({}, "column 'a' is missing"),
        ({"a": None}, "column 'a' contains NoneType, expected text"),
        ({"a": 3}, "column 'a' contains int, expected text"),
        ({"a": ["x"]}, "column 'a' contains list, expected text"),
    ],
)
def test_a_column_without_text_is_a_malformed_row(row: dict[str, Any], detail: str) -> None:
    with pytest.raises(Drop) as caught:
        read_text(row, "a")
    assert (caught.value.reason, caught.value.detail) == ("malformed_row", detail)


def test_messages_are_read_in_order() -> None:
    row = {"a": [{"role": "user", "content": "Hi!", "id": 1}, {"content": "Hello.", "role": "assistant"}]}
    assert read_messages(row, "a") == (user("Hi!"), assistant("Hello."))
    assert read_messages({"a": []}, "a") == ()


@pytest.mark.parametrize("value", [None, "Hi!", 3, {"role": "user", "content": "Hi!"}, ["Hi!"], [None], [[]]])
def test_a_column_without_messages_is_a_malformed_row(value: object) -> None:
    with pytest.raises(Drop) as caught:
        read_messages({"a": value}, "a")
    assert caught.value.reason == "malformed_row"
