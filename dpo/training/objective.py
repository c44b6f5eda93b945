"""What a run minimizes: one loss, or several with their weights."""

__all__ = ["Objective", "parse_losses"]

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from trl import DPOConfig

from dpo.errors import ConfigError
from dpo.training.losses import LOSSES, Loss, LossOptions, Pairs


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A weighted sum of losses, each pair by itself."""

    terms: tuple[tuple[Loss, float], ...]
    options: LossOptions
    reference_free: bool = False
    """Whether a loss that has a reference is given one that knows nothing: 0 for every log-probability."""

    @classmethod
    def of(cls, config: DPOConfig) -> "Objective":
        """As a run's flags say, whose losses are all in LOSSES."""
        weights = config.loss_weights or [1.0] * len(config.loss_type)
        options = {
            field.name: getattr(config, field.name) for field in fields(LossOptions) if hasattr(config, field.name)
        }
        return cls(
            terms=tuple((LOSSES[name], weight) for name, weight in zip(config.loss_type, weights, strict=True)),
            options=LossOptions(**options),
            reference_free=getattr(config, "reference_free", False),
        )

    @property
    def needs_reference(self) -> bool:
        return not self.reference_free and any(loss.needs_reference for loss, _ in self.terms)

    def loss(self, pairs: Pairs) -> torch.Tensor:
        """Of each pair, (N,)."""
        return torch.stack([weight * loss.function(pairs, self.options) for loss, weight in self.terms]).sum(dim=0)

    def rewards(self, pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
        """Implicit rewards of chosen and rejected, (N,) each: beta times the log-ratio, a token where losses say so."""
        chosen, rejected = self.options.beta * pairs.chosen_ratios, self.options.beta * pairs.rejected_ratios
        if any(loss.averages for loss, _ in self.terms):
            return chosen / pairs.chosen_tokens, rejected / pairs.rejected_tokens
        return chosen, rejected


def parse_losses(terms: Sequence[str]) -> tuple[list[str], list[float]]:
    """Names and weights of NAME or NAME:WEIGHT. ["sigmoid", "sft:0.2"] gives sigmoid and sft, 1 and 0.2.

    Raises:
        ConfigError: a weight is no number above 0, or a loss is named twice.
    """
    names, weights = [], []
    for term in terms:
        name, colon, weight = term.partition(":")
        try:
            weights.append(float(weight) if colon else 1.0)
        except ValueError:
            weights.append(float("nan"))
        if not 0 < weights[-1] < float("inf"):
            raise ConfigError(f"--loss {term}: expected NAME or NAME:WEIGHT with a weight above 0, such as sft:0.2")
        if name in names:
            raise ConfigError(f"--loss {' '.join(terms)}: '{name}' stands there twice")
        names.append(name)
    return names, weights
