"""Tests of the triplets adapter: prompt, chosen and rejected, as text or as messages."""

from typing import Any

import pytest

from dpo.data.reading.opening import open_source
from dpo.data.reading.source import parse_source
from dpo.errors import SourceError
from dpo.records import Preference
from tests.adapters.rows import convert, detail, reasons
from tests.builders import assistant, instruction, pair, system, user
from tests.conftest import WriteRows

USER = {"role": "user", "content": "Name a noble gas."}
NEON = {"role": "assistant", "content": "Neon."}
OXYGEN = {"role": "assistant", "content": "Oxygen."}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Name a noble gas.", "chosen": "Neon.", "rejected": "Oxygen."},
        {"prompt": [USER], "chosen": [NEON], "rejected": [OXYGEN]},
        {"prompt": [USER], "chosen": "Neon.", "rejected": [OXYGEN]},
        {"prompt": "Name a noble gas.", "chosen": [NEON], "rejected": "Oxygen."},
        {"chosen": [USER, NEON], "rejected": [USER, OXYGEN]},
        {"prompt": None, "chosen": [USER, NEON], "rejected": [USER, OXYGEN]},
        {"prompt": [], "chosen": [USER, NEON], "rejected": [USER, OXYGEN]},
    ],
    ids=["text", "messages", "text chosen", "text rejected", "prompt within", "null prompt", "no turns"],
)
def test_every_form_gives_the_same_pair(row: dict[str, Any]) -> None:
    assert convert("triplets", row) == [pair("Name a noble gas.", "Neon.", "Oxygen.")]


@pytest.mark.parametrize("prompt", ["Name a noble gas.", [USER]], ids=["text", "messages"])
def test_a_prompt_that_the_answers_contain_too_is_used_once(prompt: Any) -> None:
    row = {"prompt": prompt, "chosen": [USER, NEON], "rejected": [USER, OXYGEN]}
    assert convert("triplets", row) == [pair("Name a noble gas.", "Neon.", "Oxygen.")]


def test_turns_of_the_prompt_come_before_those_of_the_answers() -> None:
    row = {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi!"}],
        "chosen": [{"role": "assistant", "content": "Hello."}, USER, NEON],
        "rejected": [{"role": "assistant", "content": "Hello."}, USER, OXYGEN],
    }
    (preference,) = convert("triplets", row)
    assert isinstance(preference, Preference)
    assert preference.prompt == (system("Be brief."), user("Hi!"), assistant("Hello."), user("Name a noble gas."))


def test_scores_are_read_if_they_are_present() -> None:
    row = {"prompt": "Name a noble gas.", "chosen": "Neon.", "rejected": "Oxygen.", "score_chosen": 2}
    assert convert("triplets", row) == [pair("Name a noble gas.", "Neon.", "Oxygen.", score_chosen=2.0)]


def test_answers_to_different_conversations_are_dropped() -> None:
    row = {"chosen": [USER, NEON], "rejected": [{"role": "user", "content": "Name a metal."}, OXYGEN]}
    assert reasons("triplets", row) == ["prompts_differ"]
    assert reasons("triplets", {"chosen": [USER, NEON], "rejected": "Oxygen."}) == ["prompts_differ"]


@pytest.mark.parametrize("prompt", [None, []])
def test_a_row_without_a_prompt_is_an_empty_prompt(prompt: Any) -> None:
    assert reasons("triplets", {"prompt": prompt, "chosen": "Neon.", "rejected": "Oxygen."}) == ["empty_prompt"]
    assert reasons("triplets", {"chosen": "Neon.", "rejected": "Oxygen."}) == ["empty_prompt"]


@pytest.mark.parametrize("column", ["chosen", "rejected"])
@pytest.mark.parametrize("value", [3, {}, ["Neon."], [USER], [], [[NEON]]])
def test_an_answer_in_an_unknown_form_is_a_malformed_row(column: str, value: Any) -> None:
    row = {"prompt": "Name a noble gas.", "chosen": "Neon.", "rejected": "Oxygen."} | {column: value}
    assert reasons("triplets", row) == ["malformed_row"]
    assert f"'{column}'" in detail("triplets", row)


@pytest.mark.parametrize("prompt", [3, {"role": "user"}, ["Hi!"], [{"role": "user"}]])
def test_a_prompt_in_an_unknown_form_is_a_malformed_row(prompt: Any) -> None:
    assert reasons("triplets", {"prompt": prompt, "chosen": "Neon.", "rejected": "Oxygen."}) == ["malformed_row"]


def test_a_prompt_that_ends_in_an_answer_is_dropped() -> None:
    assert reasons("triplets", {"prompt": [USER, NEON], "chosen": "x", "rejected": "y"}) == ["prompt_not_user"]


@pytest.mark.parametrize("chosen", [{}, {"chosen": None}], ids=["missing", "null"])
def test_without_a_chosen_answer_a_row_is_malformed(chosen: dict[str, Any]) -> None:
    row = {"prompt": "Name a noble gas.", "rejected": "Oxygen."} | chosen
    assert reasons("triplets", row) == ["malformed_row"]
    assert "'chosen'" in detail("triplets", row)


@pytest.mark.parametrize("rejected", [{}, {"rejected": None}], ids=["missing", "null"])
@pytest.mark.parametrize("chosen", ["Neon.", [NEON], [USER, NEON]], ids=["text", "messages", "prompt within"])
def test_a_row_without_a_rejected_answer_is_an_instruction_row(chosen: Any, rejected: dict[str, Any]) -> None:
    row = {"prompt": "Name a noble gas.", "chosen": chosen} | rejected
    assert convert("triplets", row) == [instruction("Name a noble gas.", "Neon.")]


def test_only_a_source_of_pairs_needs_the_rejected_column(write_rows: WriteRows) -> None:
    source = parse_source(f"triplets={write_rows([{'prompt': 'Name a noble gas.', 'chosen': 'Neon.'}])}")
    with pytest.raises(SourceError, match=r"missing columns: rejected\.[\s\S]*Pass --stage sft to train on rows"):
        list(open_source(source))
    assert len(list(open_source(source, pairs=False))) == 1
