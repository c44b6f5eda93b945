"""Weights pairs in the loss by their score margins: how much higher the chosen answer scored than the rejected one."""

__all__ = ["MarginWeights", "weigh_by_margin"]

from dataclasses import dataclass
from typing import Any

import torch

from dpo.errors import ConfigError


@dataclass(frozen=True)
class MarginWeights:
    """Weights a pair by its margin / the mean margin of the training pairs.

    The weight is 1 if a score is missing, and 0 if the rejected answer scored higher. So the weights of the training
    pairs that have scores average 1.
    """

    mean: float
    """Mean margin of the training pairs, > 0. A negative margin counts as 0."""

    @classmethod
    def of(cls, train: Any) -> "MarginWeights":
        """Compute the mean margin of the training pairs.

        Args:
            train: Data set with the columns score_chosen and score_rejected, a number or None in each row.

        Raises:
            ConfigError: if no pair has scores, or no margin is above 0.
        """
        margins = margins_of(train)
        known = margins[~margins.isnan()]
        if not known.numel() or known.max() <= 0:
            found = (
                f"the largest of {known.numel()} margins is {known.max():g}" if known.numel() else "no pair has both"
            )
            raise ConfigError(
                f"--weight_by_score needs pairs whose score_chosen is above score_rejected, but {found}.\n"
                "  Leave out the flag, or train on a source whose rows have scores, such as ultrafeedback."
            )
        return cls(float(known.clamp(min=0).mean()))

    def weigh(self, pairs: Any) -> torch.Tensor:
        """Compute the weight of each pair.

        Args:
            pairs: Data set with the same columns as in `of`.

        Returns:
            float32 (pairs,). With a mean of 2, the margins 3, 1 and a missing one give 1.5, 0.5 and 1.
        """
        weights = margins_of(pairs).clamp(min=0) / self.mean
        return weights.nan_to_num(nan=1.0).float()


def weigh_by_margin(train: Any, held_out: Any | None) -> dict[str, torch.Tensor]:
    """Compute the weights of the training pairs and of the held-out pairs.

    Args:
        train: Training pairs, with the columns score_chosen and score_rejected.
        held_out: Held-out pairs with the same columns, or None.

    Returns:
        The weights of each split, "train" and "eval", float32 (pairs,).

    Raises:
        ConfigError: if no training pair has scores, or no margin is above 0.
    """
    by_margin = MarginWeights.of(train)
    splits = {"train": train} if held_out is None else {"train": train, "eval": held_out}
    return {split: by_margin.weigh(pairs) for split, pairs in splits.items()}


def margins_of(pairs: Any) -> torch.Tensor:
    """Return score_chosen - score_rejected, float64 (pairs,). NaN if a score is missing."""
    scores = pairs.select_columns(["score_chosen", "score_rejected"]).with_format("arrow")[:]
    chosen, rejected = (
        torch.tensor(scores[name].cast("float64").to_numpy(zero_copy_only=False))
        for name in ("score_chosen", "score_rejected")
    )
    return chosen - rejected
