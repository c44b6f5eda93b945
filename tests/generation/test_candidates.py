"""Which answers are refused, and which of the others become a pair."""

import re

import pytest

from dpo.generation.candidates import Candidate, check_answer, choose_best_worst, choose_rejected
from dpo.records import Drop

LITERALS = re.compile(r"<\|im_end\|>")
COUNTED = " ".join(f"word{i}" for i in range(30))
ONE_WORD_LESS = COUNTED.removesuffix(" word29")
"""It has 25 of the 26 five-word runs of COUNTED."""


def candidates(**scores: float) -> list[Candidate]:
    return [Candidate(text=text, score=score) for text, score in scores.items()]


@pytest.mark.parametrize(
    ("text", "ended", "reason"),
    [
        ("Argon.", True, None),
        ("Argon", False, "unfinished"),
        ("", False, "unfinished"),
        ("", True, "empty_generation"),
        ("Argon.<|im_end|>", True, "special_token_in_text"),
    ],
)
def test_an_answer_is_refused_for_one_reason(text: str, ended: bool, reason: str | None) -> None:
    drop = check_answer(text, ended=ended, literals=LITERALS, keep_unfinished=False)
    assert (drop and drop.reason) == reason


def test_an_answer_that_was_cut_off_is_accepted_with_keep_unfinished() -> None:
    assert check_answer("Argon", ended=False, literals=LITERALS, keep_unfinished=True) is None
    drop = check_answer("", ended=False, literals=LITERALS, keep_unfinished=True)
    assert drop is not None and drop.reason == "empty_generation"


@pytest.mark.parametrize(
    ("pick", "text"), [("longest", "Helium, I think."), ("shortest", "Iron."), ("scorer", "Oxygen.")]
)
def test_the_rejected_answer_is_picked(pick, text: str) -> None:
    found = [
        Candidate(text="Oxygen.", score=-2.0),
        Candidate(text="Helium, I think.", score=1.0),
        Candidate(text="Iron.", score=0.5),
    ]
    assert choose_rejected("Neon.", found, [], pick=pick, seed=0).text == text


def test_a_random_pick_depends_on_the_seed_alone() -> None:
    found = candidates(a=0, b=0, c=0)
    picked = [choose_rejected("Neon.", found, [], pick="random", seed=seed).text for seed in range(30)]
    assert picked == [choose_rejected("Neon.", found, [], pick="random", seed=seed).text for seed in range(30)]
    assert set(picked) == {"a", "b", "c"}


@pytest.mark.parametrize(("chosen", "answer"), [("Neon.", "neon ."), (COUNTED, COUNTED), (COUNTED, ONE_WORD_LESS)])
def test_an_answer_that_is_nearly_identical_to_chosen_is_not_rejected(chosen: str, answer: str) -> None:
    with pytest.raises(Drop) as dropped:
        choose_rejected(chosen, [Candidate(text=answer)], [], pick="random", seed=0)
    assert dropped.value.reason == "near_identical"
    other = Candidate(text="Something else.")
    assert choose_rejected(chosen, [Candidate(text=answer), other], [], pick="longest", seed=0) == other


@pytest.mark.parametrize(
    ("found", "refused", "reason"),
    [
        ([], ["unfinished", "unfinished"], "unfinished"),
        ([], ["empty_generation", "unfinished"], "empty_generation"),
        ([], ["special_token_in_text", "empty_generation"], "special_token_in_text"),
        (["Neon."], ["special_token_in_text", "unfinished"], "near_identical"),
    ],
)
def test_a_prompt_is_dropped_for_the_last_reason_of_its_answers(
    found: list[str], refused: list[str], reason: str
) -> None:
    with pytest.raises(Drop) as dropped:
        choose_rejected(
            "Neon.", [Candidate(text=text) for text in found], list(map(Drop, refused)), pick="random", seed=0
        )
    assert dropped.value.reason == reason


def test_the_best_is_paired_with_the_worst() -> None:
    best, worst = choose_best_worst(candidates(Argon=1, Neon=3, Oxygen=2), [])
    assert (best.text, best.score, worst.text, worst.score) == ("Neon", 3, "Argon", 1)


def test_the_worst_is_not_nearly_identical_to_the_best() -> None:
    best, worst = choose_best_worst(candidates(neon=1, Neon=3, Oxygen=2), [])
    assert (best.text, worst.text) == ("Neon", "Oxygen")


@pytest.mark.parametrize(
    ("scores", "refused", "reason"),
    [
        ({"Neon": 2, "Argon": 2}, [], "tie"),
        ({"Neon": 2, "neon": 1}, ["unfinished"], "near_identical"),
        ({"Neon": 2}, ["unfinished"], "unfinished"),
        ({}, ["unfinished", "empty_generation"], "empty_generation"),
    ],
)
def test_answers_that_cannot_be_ranked_give_no_pair(scores: dict[str, float], refused: list[str], reason: str) -> None:
    with pytest.raises(Drop) as dropped:
        choose_best_worst(candidates(**scores), list(map(Drop, refused)))
    assert dropped.value.reason == reason
