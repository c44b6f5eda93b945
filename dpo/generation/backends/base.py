"""What runs a model: one contract, two libraries."""

__all__ = ["Answer", "Backend", "cut_at"]

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from dpo.generation.config import GenerationConfig
from dpo.models.locating import LocatedModel


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model said."""

    ids: list[int]
    """Without the token that ended it."""
    ended: bool
    """Whether it came to its end within max_new_tokens."""

    @property
    def num_tokens(self) -> int:
        """Tokens that were generated, the one that ended it included."""
        return len(self.ids) + self.ended


class Backend(Protocol):
    """A loaded model."""

    def __init__(self, located: LocatedModel, config: GenerationConfig, *, end_ids: Sequence[int]) -> None:
        """Load the model.

        Args:
            located: Where it lies.
            config: How to draw.
            end_ids: Tokens that end an answer, the template's first.

        Raises:
            DPOError: it cannot be loaded.
        """

    def answer(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Answer]:
        """One answer to each prompt, in order.

        Args:
            prompts: Token ids.
            seeds: One for each prompt. A sequence's random numbers come from its own alone.
        """


def cut_at(ids: Sequence[int], end_ids: Collection[int]) -> Answer:
    """An answer up to the first token that ends it. 5 6 2 0 with 2 as the end gives 5 6."""
    end = next((place for place, token in enumerate(ids) if token in end_ids), None)
    return Answer(ids=list(ids[:end]), ended=end is not None)
