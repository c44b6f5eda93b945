"""Tests of the nectar adapter: ranked answers, and prompts as one string of turns."""

from typing import Any

import pytest

from dpo.adapters.base import split_turns
from dpo.records import Drop, Preference
from tests.adapters.rows import convert, detail, reasons
from tests.builders import assistant, user


def row(prompt: Any = "\n\nHuman: Name a noble gas.\n\nAssistant: ", **ranks: Any) -> dict[str, Any]:
    """Build a row of ranked answers. Default: neon=1 and water=2."""
    answers = [
        {"answer": text, "model": "m", "rank": rank} for text, rank in (ranks or {"neon": 1, "water": 2}).items()
    ]
    return {"prompt": prompt, "answers": answers}


def answers_of(candidates: list[Preference | Drop]) -> list[tuple[str, str]]:
    return [(candidate.chosen, candidate.rejected) for candidate in candidates if isinstance(candidate, Preference)]


def test_the_lowest_rank_is_chosen_for_any_order_of_the_answers() -> None:
    (preference,) = convert("nectar", row(iron=3.0, water=4.0, neon=1.0, argon=2.0))
    assert isinstance(preference, Preference)
    assert (preference.chosen, preference.rejected) == ("neon", "water")
    assert (preference.score_chosen, preference.score_rejected) == (-1.0, -4.0)


def test_a_row_gives_as_many_pairs_as_the_pairing_says() -> None:
    ranks = {"iron": 3, "neon": 1, "argon": 2}
    assert answers_of(convert("nectar", row(**ranks), pairing="adjacent")) == [("neon", "argon"), ("argon", "iron")]
    assert answers_of(convert("nectar", row(**ranks), pairing="all")) == [
        ("neon", "argon"),
        ("neon", "iron"),
        ("argon", "iron"),
    ]


def test_turns_are_split_and_stripped() -> None:
    prompt = "\n\nHuman: Hi!\nTwo lines. \n\nAssistant:  Hello. \n\nHuman: 2 + 2?\n\nAssistant: "
    assert split_turns(prompt) == (
        user("Hi!\nTwo lines."),
        assistant("Hello."),
        user("2 + 2?"),
        assistant(""),
    )


def test_a_speaker_s_name_inside_a_line_or_paragraph_is_text() -> None:
    prompt = "\n\nHuman: What does Assistant: mean?\nHuman: too\n\nAssistant:"
    assert split_turns(prompt) == (user("What does Assistant: mean?\nHuman: too"), assistant(""))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Name a noble gas.", "at the start, found 'Name a noble gas.'"),
        ("", "at the start, found ''"),
        ("Human: Hi!\n\nAssistant: ", "at the start"),
        ("preface\n\nHuman: Hi!\n\nAssistant: ", "at the start"),
        ("\n\nHuman: Hi!", "at the end, found '\\n\\nHuman: Hi!'"),
        ("\n\nHuman: Hi!\n\nAssistant: Hello.", "at the end"),
    ],
)
def test_a_prompt_without_the_expected_turns_is_a_malformed_prompt(prompt: str, expected: str) -> None:
    assert reasons("nectar", row(prompt)) == ["malformed_prompt"]
    assert expected in detail("nectar", row(prompt))


def test_a_prompt_of_only_the_open_assistant_turn_is_an_empty_prompt() -> None:
    assert reasons("nectar", row("\n\nAssistant: ")) == ["empty_prompt"]


def test_two_assistant_turns_in_a_row_are_a_prompt_not_user() -> None:
    assert reasons("nectar", row("\n\nHuman: Hi!\n\nAssistant: Hello.\n\nAssistant: ")) == ["prompt_not_user"]


@pytest.mark.parametrize("rank", ["first", None, [1], {}, float("nan")])
def test_a_rank_that_is_not_a_number_is_a_malformed_row(rank: Any) -> None:
    assert reasons("nectar", row(neon=rank, water=2, argon=1)) == ["malformed_row"]


def test_a_rank_too_large_for_a_float_is_a_malformed_row() -> None:
    assert reasons("nectar", row(neon=1, water=10**400)) == ["malformed_row"]


@pytest.mark.parametrize("answers", [None, "neon", 3, {"answer": "neon", "rank": 1}])
def test_answers_that_are_not_a_list_are_a_malformed_row(answers: Any) -> None:
    malformed = row() | {"answers": answers}
    assert reasons("nectar", malformed) == ["malformed_row"]
    kind = type(answers).__name__
    assert detail("nectar", malformed) == f"column 'answers' contains {kind}, expected a list of objects"


@pytest.mark.parametrize("answer", [None, "neon", 3, [], {"rank": 1}, {"rank": 1, "answer": None}])
def test_an_answer_without_text_or_rank_is_a_malformed_row(answer: Any) -> None:
    malformed = row()
    malformed["answers"].append(answer)
    assert reasons("nectar", malformed) == ["malformed_row"]


@pytest.mark.parametrize("missing", ["prompt", "answers"])
def test_a_missing_column_is_a_malformed_row(missing: str) -> None:
    incomplete = row()
    del incomplete[missing]
    assert reasons("nectar", incomplete) == ["malformed_row"]


@pytest.mark.parametrize("answers", [[], [{"answer": "neon", "rank": 1}]])
def test_fewer_than_two_answers_are_too_few_answers(answers: list[Any]) -> None:
    assert reasons("nectar", row() | {"answers": answers}) == ["too_few_answers"]


def test_the_answers_may_be_json_text_as_in_csv_files() -> None:
    cell = '[{"answer": "water", "rank": 2.0}, {"answer": "neon", "rank": 1.0}]'
    assert answers_of(convert("nectar", row() | {"answers": cell})) == [("neon", "water")]
    assert reasons("nectar", row() | {"answers": cell[:-1]}) == ["malformed_row"]
