"""The loss and the metrics of a run. On pairs it is a weighted sum of losses, in SFT the loss of the answer tokens."""

__all__ = ["AnswerObjective", "Objective", "PairObjective", "pairs_of"]

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from dpo.engine.logps import Scored
from dpo.engine.packing import Pack
from dpo.objective.losses import LOSSES, Loss, LossOptions, Pairs


class Objective(Protocol):
    """What the packed engine minimizes, and the metrics that it logs. Both are means over items."""

    unit: ClassVar[str]
    """Name of the data's rows: "pairs" or "answers"."""
    names: ClassVar[tuple[str, ...]]
    """Names of the metrics. The first is the loss."""
    counts_tokens: ClassVar[bool]
    """True if an item is an answer token, False if it is a pair. The number of tokens differs from step to step."""

    @property
    def needs_reference(self) -> bool: ...

    @property
    def compares_pairs(self) -> bool: ...

    @property
    def wants_confidences(self) -> bool: ...

    def loss(self, pairs: Pairs) -> torch.Tensor:
        """Return the loss of each row, summed over its items, (N,)."""
        ...

    def items(self, pairs: Pairs) -> torch.Tensor:
        """Return the number of items of each row, (N,)."""
        ...

    def measure(self, pairs: Pairs) -> torch.Tensor:
        """Return the metrics of each row, as means over its items, (N, names)."""
        ...


@dataclass(frozen=True)
class AnswerObjective:
    """SFT: the mean of -log pi over the answer tokens of a step, as transformers computes it."""

    unit: ClassVar[str] = "answers"
    names: ClassVar[tuple[str, ...]] = ("loss",)
    counts_tokens: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = False
    compares_pairs: ClassVar[bool] = False
    wants_confidences: ClassVar[bool] = False

    def loss(self, pairs: Pairs) -> torch.Tensor:
        return -pairs.chosen

    def items(self, pairs: Pairs) -> torch.Tensor:
        return pairs.chosen_tokens

    def measure(self, pairs: Pairs) -> torch.Tensor:
        return -pairs.chosen_means[:, None]


@dataclass(frozen=True, kw_only=True)
class PairObjective:
    """A weighted sum of losses on pairs."""

    unit: ClassVar[str] = "pairs"
    names: ClassVar[tuple[str, ...]] = (
        *("loss", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"),
        *("logps/chosen", "logps/rejected"),
    )
    """The names that TRL uses."""
    counts_tokens: ClassVar[bool] = False

    terms: tuple[tuple[Loss, float], ...]
    """The losses and their weights."""
    options: LossOptions
    reference_free: bool = False
    """Whether every log-probability under the reference model is replaced by 0."""
    wants_confidences: bool = False
    """Whether pairs are weighted by the policy's confidence in their answers, as in WPO."""

    @property
    def compares_pairs(self) -> bool:
        return any(loss.compares_pairs for loss, _ in self.terms)

    @property
    def averages(self) -> bool:
        """Whether every loss that compares answers has rewards that are means over tokens."""
        compared = [loss for loss, _ in self.terms if loss is not LOSSES["sft"]]
        return bool(compared) and all(loss.averages for loss in compared)

    @property
    def needs_reference(self) -> bool:
        return not self.reference_free and any(loss.needs_reference for loss, _ in self.terms)

    def loss(self, pairs: Pairs) -> torch.Tensor:
        terms = [weight * loss.function(pairs, self.options) for loss, weight in self.terms]
        total = torch.stack(terms).sum(dim=0)
        return total if pairs.weights is None else pairs.weights * total

    def items(self, pairs: Pairs) -> torch.Tensor:
        return torch.ones_like(pairs.chosen)

    def measure(self, pairs: Pairs) -> torch.Tensor:
        chosen, rejected = self.rewards(pairs)
        measures = (
            *(self.loss(pairs), chosen, rejected, (chosen > rejected).to(chosen.dtype), chosen - rejected),
            *(pairs.chosen, pairs.rejected),
        )
        return torch.stack(measures, dim=1)

    def rewards(self, pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the implicit rewards of chosen and rejected: beta times the log-ratio, or its mean over tokens.

        Args:
            pairs: Log-probabilities of N pairs.

        Returns:
            Two tensors, (N,) each. beta 0.5 and log-ratios 2 and -1 give 1 and -0.5.
        """
        chosen, rejected = self.options.beta * pairs.chosen_ratios, self.options.beta * pairs.rejected_ratios
        if self.averages:
            return chosen / pairs.chosen_tokens, rejected / pairs.rejected_tokens
        return chosen, rejected


def pairs_of(pack: Pack, scored: Scored, ref_logps: torch.Tensor, pairs: slice = slice(None)) -> Pairs:
    """Build the input of the losses for some pairs of a pack.

    Args:
        pack: The whole pack.
        scored: Scores of these pairs under the policy.
        ref_logps: Log-probabilities of the whole pack under the reference model, nats, float32 (2 x pairs,).
        pairs: The slice of these pairs in the pack. Default: all pairs.
    """
    completions = pairs if pairs == slice(None) else slice(2 * pairs.start, 2 * pairs.stop)
    return Pairs.of(
        scored.logps,
        ref_logps[completions],
        pack.num_completion_tokens[completions],
        confidences=scored.confidences,
        weights=None if pack.weights is None else pack.weights[pairs],
    )
