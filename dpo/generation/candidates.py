"""From a model's answers to a pair: which answers are refused, and which of the others are taken. Pure."""

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
"""Why an answer is not taken, in the order they are looked for. A prompt that is left without one is dropped for the
last of these that any of its answers came to."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An answer that may be taken."""

    text: str
    score: float = 0.0
    """The reward model's, higher is better; 0 where there is none."""


def check_answer(text: str, *, ended: bool, literals: re.Pattern[str], keep_unfinished: bool) -> Drop | None:
    """Find why an answer cannot be taken, whatever it is paired with.

    Args:
        text: Control tokens in it included.
        ended: Whether the model came to its end.
        literals: Finds control tokens.
        keep_unfinished: Whether an answer that was cut off may be taken.
    """
    if not ended and not keep_unfinished:
        return Drop("unfinished", f"cut off: ...{text[-60:]!r}")
    if not text:
        return Drop("empty_generation")
    if found := literals.search(text):
        return Drop("special_token_in_text", f"the answer holds {found.group()}")
    return None


def choose_rejected(
    chosen: str, candidates: Sequence[Candidate], refused: Sequence[Drop], *, pick: Pick, seed: int
) -> Candidate:
    """The answer to reject, of those that are not nearly the chosen one.

    Args:
        chosen: The better answer.
        candidates: What may be taken. Of equals the first is.
        refused: Why the others may not.
        pick: How to choose.
        seed: Of the random choice.

    Raises:
        Drop: nothing is left.
    """
    different = [candidate for candidate in candidates if not are_texts_alike(candidate.text, chosen)]
    if not different:
        alike = [Drop("near_identical", f"the model says {candidate.text[:60]!r}") for candidate in candidates]
        raise last_of([*refused, *alike])
    if pick == "longest":
        return max(different, key=lambda candidate: len(candidate.text))
    if pick == "shortest":
        return min(different, key=lambda candidate: len(candidate.text))
    if pick == "scorer":
        return min(different, key=lambda candidate: candidate.score)
    return random.Random(seed).choice(different)


def choose_best_worst(candidates: Sequence[Candidate], refused: Sequence[Drop]) -> tuple[Candidate, Candidate]:
    """The answer with the highest score, and the one with the lowest of those that are not nearly the same.

    Scores 1 3 2 of three different texts give the second and the first.

    Raises:
        Drop: tie, or nothing is left to pair.
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
