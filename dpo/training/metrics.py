"""What is logged of pairs: means over all pairs of all ranks, whatever micro-batch each was in."""

__all__ = ["PairMetrics"]

import torch
from accelerate import Accelerator

from dpo.training.logps import Scored
from dpo.training.losses import Pairs
from dpo.training.objective import Objective
from dpo.training.packing import Pack

NAMES = (
    *("loss", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"),
    *("logps/chosen", "logps/rejected"),
)
"""As TRL has them."""


class PairMetrics:
    """Collects log-probabilities until they are logged.

    Args:
        objective: What the run minimizes.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.seen: list[torch.Tensor] = []
        self.loss_sum = 0.0
        self.num_pairs = 0.0

    def add(self, pack: Pack, scored: Scored, ref_logps: torch.Tensor) -> None:
        """Take in a pack, what the policy makes of it, and the reference's log-probabilities, (2 x pairs,)."""
        values = [scored.logps, ref_logps, pack.num_completion_tokens]
        values += [] if scored.confidences is None else [scored.confidences]
        self.seen.append(torch.stack(values))

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over every rank's pairs since the last call, which every rank must make.

        Returns:
            By the names of NAMES; empty where no rank has seen a pair.
        """
        sums = torch.zeros(len(NAMES) + 1, dtype=torch.float64)
        if self.seen:
            # On the CPU, where there is float64 whatever the device.
            measures = torch.cat([self.measure(Pairs.of(*pack.cpu().double())) for pack in self.seen])
            sums = torch.cat((measures.sum(dim=0), torch.tensor([float(len(measures))])))
        self.seen.clear()
        *totals, count = accelerator.reduce(sums.to(accelerator.device), reduction="sum").tolist()
        self.loss_sum += totals[NAMES.index("loss")]
        self.num_pairs += count
        return {name: total / count for name, total in zip(NAMES, totals, strict=True)} if count else {}

    def mean_loss(self) -> float:
        """Over all pairs that means were ever taken of; 0 of none."""
        return self.loss_sum / self.num_pairs if self.num_pairs else 0.0

    def measure(self, pairs: Pairs) -> torch.Tensor:
        """The measures of each pair, (pairs, measures)."""
        chosen, rejected = self.objective.rewards(pairs)
        measures = (
            *(self.objective.loss(pairs), chosen, rejected, (chosen > rejected).double(), chosen - rejected),
            *(pairs.chosen, pairs.rejected),
        )
        return torch.stack(measures, dim=1)
