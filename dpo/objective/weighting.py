"""What pairs count in the loss where their scores say how much better the chosen answer is."""

__all__ = ["MarginWeights", "weigh_by_margin"]

from dataclasses import dataclass
from typing import Any

import torch

from dpo.errors import ConfigError


@dataclass(frozen=True)
class MarginWeights:
    """A pair counts margin / mean margin of the training pairs, and 1 where it has no scores.

    So the weights of scored pairs average 1. Where the rejected answer scored higher, a pair counts 0.
    """

    mean: float
    """Of the training pairs' margins, above 0."""

    @classmethod
    def of(cls, train: Any) -> "MarginWeights":
        """From training pairs with score_chosen and score_rejected, a number or None each.

        Raises:
            ConfigError: no pair has scores, or no margin is above 0.
        """
        margins = margins_of(train)
        known = margins[~margins.isnan()]
        if not known.numel() or known.max() <= 0:
            found = f"the largest of {known.numel()} margins is {known.max():g}" if known.numel() else "no pair has any"
            raise ConfigError(
                f"--weight_by_score reads score_chosen and score_rejected, and {found}.\n"
                "  Leave it out, or train on a source whose rows carry scores, such as ultrafeedback."
            )
        return cls(float(known.clamp(min=0).mean()))

    def weigh(self, pairs: Any) -> torch.Tensor:
        """Weights of pairs, float32 (pairs,). Margins 3, 1 and none of a mean of 2: 1.5, 0.5 and 1."""
        weights = margins_of(pairs).clamp(min=0) / self.mean
        return weights.nan_to_num(nan=1.0).float()


def weigh_by_margin(train: Any, held_out: Any | None) -> dict[str, torch.Tensor]:
    """Weights of the training pairs and of the held-out ones, by split, float32 (pairs,) each."""
    by_margin = MarginWeights.of(train)
    splits = {"train": train} if held_out is None else {"train": train, "eval": held_out}
    return {split: by_margin.weigh(pairs) for split, pairs in splits.items()}


def margins_of(pairs: Any) -> torch.Tensor:
    """score_chosen - score_rejected, float64 (pairs,), NaN where a score is missing."""
    scores = pairs.select_columns(["score_chosen", "score_rejected"]).with_format("arrow")[:]
    chosen, rejected = (
        torch.tensor(scores[name].cast("float64").to_numpy(zero_copy_only=False))
        for name in ("score_chosen", "score_rejected")
    )
    return chosen - rejected
