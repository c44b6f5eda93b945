"""Chooses a pair from a model's answers: refuses unusable answers, and picks among the others. Pure functions."""

__all__ = ["Candidate", "Pick", "check_answer", "choose_best_worst", "choose_rejected"]

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dpo.data.cleaning.near_duplicates import are_texts_alike
from dpo.records import Drop

Pick = Literal["random", "longest", "shortest", "scorer"]

REFUSALS = ("unfinished", "empty_generation", "special_token_in_text", "too_long_to_score", "near_identical")
"""Reasons to refuse an answer, in the order of the checks. A prompt without a usable answer is dropped. Its reason is
the one of its answers' reasons that is last in this order."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An answer that can be used."""

    text: str
    score: float = 0.0
    """Score of the reward model, higher is better. 0 without a reward model."""


def check_answer(text: str, *, ended: bool, literals: re.Pattern[str], keep_unfinished: bool) -> Drop | None:
    """Check whether an answer can be used, independent of the other answer of its pair.

    Args:
        text: The answer, including control tokens.
        ended: Whether the model ended the answer.
        literals: Pattern that matches control tokens.
        keep_unfinished: Whether to accept an answer that was cut off.

    Returns:
        The reason to refuse the answer. None if it can be used.
    """
    if not ended and not keep_unfinished:
        return Drop("unfinished", f"cut off: ...{text[-60:]!r}")
    if not text:
        return Drop("empty_generation")
    if found := literals.search(text):
        return Drop("special_token_in_text", f"the answer contains {found.group()}")
    return None


def choose_rejected(
    chosen: str, candidates: Sequence[Candidate], refused: Sequence[Drop], *, pick: Pick, seed: int
) -> Candidate:
    """Choose the rejected answer among the candidates that are not nearly identical to the chosen answer.

    Args:
        chosen: The better answer.
        candidates: The answers that can be used. The first of equal ones is chosen.
        refused: Why the prompt's other answers cannot be used.
        pick: How to choose.
        seed: Seed of the random choice.

    Raises:
        Drop: if no candidate is left.
    """
    different = [candidate for candidate in candidates if not are_texts_alike(candidate.text, chosen)]
    if not different:
        alike = [Drop("near_identical", f"the model wrote {candidate.text[:60]!r}") for candidate in candidates]
        raise last_of([*refused, *alike])
    if pick == "longest":
        return max(different, key=lambda candidate: len(candidate.text))
    if pick == "shortest":
        return min(different, key=lambda candidate: len(candidate.text))
    if pick == "scorer":
        return min(different, key=lambda candidate: candidate.score)
    return random.Random(seed).choice(different)


def choose_best_worst(candidates: Sequence[Candidate], refused: Sequence[Drop]) -> tuple[Candidate, Candidate]:
    """Choose the best candidate, and the worst of those that are not nearly identical to it.

    Scores 1, 3 and 2 of three different texts give the second and the first candidate.

    Args:
        candidates: The answers that can be used, with their scores.
        refused: Why the prompt's other answers cannot be used.

    Raises:
        Drop: if both scores are equal, or no pair is left.
    """
    if not candidates:
        raise last_of(refused)
    best = max(candidates, key=lambda candidate: candidate.score)
    others = [candidate for candidate in candidates if candidate is not best]
    worst = choose_rejected(best.text, others, refused, pick="scorer", seed=0)
    if best.score == worst.score:
        raise Drop("tie", f"both scores are {best.score:g}")
    return best, worst


def last_of(drops: Sequence[Drop]) -> Drop:
    return max(drops, key=lambda drop: REFUSALS.index(drop.reason))
