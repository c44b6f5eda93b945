"""What a run minimizes: one loss, or several with their weights."""

__all__ = ["Objective", "parse_losses"]

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

from dpo.errors import ConfigError
from dpo.training.losses import LOSSES, Loss, LossOptions, Pairs

if TYPE_CHECKING:
    from dpo.training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A weighted sum of losses."""

    terms: tuple[tuple[Loss, float], ...]
    options: LossOptions
    reference_free: bool = False
    """Whether a loss that has a reference is given one that knows nothing: 0 for every log-probability."""
    wants_confidences: bool = False
    """Whether pairs weigh by the policy's confidence in them, as in WPO."""

    @classmethod
    def of(cls, config: "TrainingConfig") -> "Objective":
        """As a run's flags say, whose losses are all in LOSSES."""
        weights = config.loss_weights or [1.0] * len(config.loss_type)
        return cls(
            terms=tuple((LOSSES[name], weight) for name, weight in zip(config.loss_type, weights, strict=True)),
            options=LossOptions(**{field.name: getattr(config, field.name) for field in fields(LossOptions)}),
            reference_free=config.reference_free,
            wants_confidences=config.use_weighting,
        )

    @property
    def compares_pairs(self) -> bool:
        return any(loss.compares_pairs for loss, _ in self.terms)

    @property
    def averages(self) -> bool:
        """Whether every loss that compares answers shapes a reward a token."""
        compared = [loss for loss, _ in self.terms if loss is not LOSSES["sft"]]
        return bool(compared) and all(loss.averages for loss in compared)

    @property
    def needs_reference(self) -> bool:
        return not self.reference_free and any(loss.needs_reference for loss, _ in self.terms)

    def loss(self, pairs: Pairs) -> torch.Tensor:
        """Of each pair, (N,)."""
        terms = [weight * loss.function(pairs, self.options) for loss, weight in self.terms]
        total = torch.stack(terms).sum(dim=0)
        return total if pairs.weights is None else pairs.weights * total

    def rewards(self, pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
        """Implicit rewards of chosen and rejected, (N,) each: beta times the log-ratio, or its mean over tokens."""
        chosen, rejected = self.options.beta * pairs.chosen_ratios, self.options.beta * pairs.rejected_ratios
        if self.averages:
            return chosen / pairs.chosen_tokens, rejected / pairs.rejected_tokens
        return chosen, rejected


def parse_losses(terms: Sequence[str]) -> tuple[list[str], list[float]]:
    """Names and weights of NAME or NAME:WEIGHT. ["sigmoid", "sft:0.2"] gives sigmoid and sft, 1 and 0.2.

    Raises:
        ConfigError: a weight is no number above 0, or a loss is named twice or behind a comma.
    """
    names, weights = [], []
    for term in terms:
        name, colon, weight = term.partition(":")
        try:
            weights.append(float(weight) if colon else 1.0)
        except ValueError:
            weights.append(float("nan"))
        if not 0 < weights[-1] < float("inf"):
            raise ConfigError(f"loss '{term}': expected NAME or NAME:WEIGHT with a weight above 0, such as sft:0.2")
        if "," in term:
            raise ConfigError(f"loss '{term}': several stand apart, as in --loss ipo sft:0.2")
        if name in names:
            raise ConfigError(f"loss '{name}' is named twice in {' '.join(terms)}: name it once, with its weight")
        names.append(name)
    return names, weights
