"""What is logged of pairs: means over all pairs of all ranks, whatever micro-batch each was in."""

__all__ = ["PairMetrics"]

import torch
from accelerate import Accelerator

from dpo.training.losses import sigmoid_loss

NAMES = (
    *("loss", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"),
    *("logps/chosen", "logps/rejected"),
)
"""As TRL has them."""


class PairMetrics:
    """Collects log-probabilities until they are logged.

    Args:
        beta: Factor between log-ratios and rewards.
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self.seen: list[torch.Tensor] = []
        self.loss_sum = 0.0
        self.num_pairs = 0.0

    def add(self, logps: torch.Tensor, reference_logps: torch.Tensor) -> None:
        """Take in a pack: the policy's log-probabilities and the reference's, (2 x pairs,), chosen before rejected."""
        self.seen.append(torch.cat((logps.detach().view(-1, 2), reference_logps.view(-1, 2)), dim=1))

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over every rank's pairs since the last call, which every rank must make.

        Returns:
            By the names of NAMES; empty where no rank has seen a pair.
        """
        sums = torch.zeros(len(NAMES) + 1, dtype=torch.float64)
        if self.seen:
            # On the CPU, where there is float64 whatever the device.
            values = self.measure(torch.cat(self.seen).cpu().double())
            sums = torch.cat((values.sum(dim=0), torch.tensor([float(len(values))])))
        self.seen.clear()
        *totals, count = accelerator.reduce(sums.to(accelerator.device), reduction="sum").tolist()
        self.loss_sum += totals[NAMES.index("loss")]
        self.num_pairs += count
        return {name: total / count for name, total in zip(NAMES, totals, strict=True)} if count else {}

    def mean_loss(self) -> float:
        """Over all pairs that means were ever taken of; 0 of none."""
        return self.loss_sum / self.num_pairs if self.num_pairs else 0.0

    def measure(self, logps: torch.Tensor) -> torch.Tensor:
        """The measures of each pair, (pairs, measures), from (pairs, 4): chosen, rejected, and the reference's."""
        chosen, rejected, ref_chosen, ref_rejected = logps.unbind(dim=1)
        chosen_rewards, rejected_rewards = self.beta * (chosen - ref_chosen), self.beta * (rejected - ref_rejected)
        loss = sigmoid_loss(chosen, rejected, ref_chosen, ref_rejected, beta=self.beta)
        right = (chosen_rewards > rejected_rewards).double()
        margins = chosen_rewards - rejected_rewards
        return torch.stack((loss, chosen_rewards, rejected_rewards, right, margins, chosen, rejected), dim=1)
