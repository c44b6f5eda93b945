"""What a run minimizes and measures: on pairs, one loss or several with their weights; on answers, their tokens'."""

__all__ = ["AnswerObjective", "Objective", "PairObjective", "pairs_of"]

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from dpo.engine.logps import Scored
from dpo.engine.packing import Pack
from dpo.objective.losses import LOSSES, Loss, LossOptions, Pairs


class Objective(Protocol):
    """What the packed engine is to minimize, and what is logged of it: means over items."""

    unit: ClassVar[str]
    """What a row of the data is: pairs or answers."""
    names: ClassVar[tuple[str, ...]]
    """Of the measures. The first is the loss."""
    counts_tokens: ClassVar[bool]
    """Whether items are answer tokens, of which a step takes as many as there are, or pairs."""

    @property
    def needs_reference(self) -> bool: ...

    @property
    def compares_pairs(self) -> bool: ...

    @property
    def wants_confidences(self) -> bool: ...

    def loss(self, pairs: Pairs) -> torch.Tensor:
        """Of each row, summed over its items, (N,)."""
        ...

    def items(self, pairs: Pairs) -> torch.Tensor:
        """How many items each row is, (N,)."""
        ...

    def measure(self, pairs: Pairs) -> torch.Tensor:
        """The measures of each row, means over its items, (N, names)."""
        ...


@dataclass(frozen=True)
class AnswerObjective:
    """SFT: the mean of -log pi over the answer tokens of a step, as transformers has it."""

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
    """As TRL has them."""
    counts_tokens: ClassVar[bool] = False

    terms: tuple[tuple[Loss, float], ...]
    options: LossOptions
    reference_free: bool = False
    """Whether a loss that has a reference is given one that knows nothing: 0 for every log-probability."""
    wants_confidences: bool = False
    """Whether pairs weigh by the policy's confidence in them, as in WPO."""

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
        """Implicit rewards of chosen and rejected, (N,) each: beta times the log-ratio, or its mean over tokens."""
        chosen, rejected = self.options.beta * pairs.chosen_ratios, self.options.beta * pairs.rejected_ratios
        if self.averages:
            return chosen / pairs.chosen_tokens, rejected / pairs.rejected_tokens
        return chosen, rejected


def pairs_of(pack: Pack, scored: Scored, ref_logps: torch.Tensor, pairs: slice = slice(None)) -> Pairs:
    """Some pairs of a pack as losses see them.

    Args:
        pack: The whole pack.
        scored: What the policy makes of these pairs.
        ref_logps: The reference's log-probabilities of the whole pack, (2 x pairs,).
        pairs: Which they are. Default: all.
    """
    completions = pairs if pairs == slice(None) else slice(2 * pairs.start, 2 * pairs.stop)
    return Pairs.of(
        scored.logps,
        ref_logps[completions],
        pack.num_completion_tokens[completions],
        confidences=scored.confidences,
        weights=None if pack.weights is None else pack.weights[pairs],
    )
