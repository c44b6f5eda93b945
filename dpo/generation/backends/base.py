"""The interface of a library that runs a model."""

__all__ = ["Answer", "Backend", "cut_at"]

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from dpo.generation.config import GenerationConfig
from dpo.models.locating import LocatedModel


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer of a model."""

    ids: list[int]
    """Token ids, without the end token."""
    ended: bool
    """Whether the model ended the answer within max_new_tokens."""

    @property
    def num_tokens(self) -> int:
        """Number of generated tokens, including the end token."""
        return len(self.ids) + self.ended


class Backend(Protocol):
    """A loaded model."""

    def __init__(self, located: LocatedModel, config: GenerationConfig, *, end_ids: Sequence[int]) -> None:
        """Load the model.

        Args:
            located: Folder or Hub id of the model.
            config: How to generate answers.
            end_ids: Token ids that end an answer. The template's end-of-turn token is first.

        Raises:
            DPOError: if the model cannot be loaded.
        """

    def answer(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Answer]:
        """Generate one answer to each prompt, in order.

        Args:
            prompts: Token ids of each prompt.
            seeds: Seed of each prompt. The random numbers of a sequence depend only on its own seed.
        """


def cut_at(ids: Sequence[int], end_ids: Collection[int]) -> Answer:
    """Cut token ids at the first end token. 5 6 2 0 with the end token 2 gives 5 6."""
    end = next((place for place, token in enumerate(ids) if token in end_ids), None)
    return Answer(ids=list(ids[:end]), ended=end is not None)
