"""The metrics that a run logs: means over the pairs or answer tokens of all ranks and micro-batches."""

__all__ = ["Metrics"]

import torch
from accelerate import Accelerator

from dpo.objective.losses import Pairs
from dpo.objective.terms import Objective


class Metrics:
    """Collects log-probabilities until the next log entry.

    Args:
        objective: The objective that the run minimizes.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.seen: list[Pairs] = []
        self.loss_sum = 0.0
        self.num_items = 0.0

    def add(self, pairs: Pairs) -> None:
        """Collect pairs.

        Args:
            pairs: Log-probabilities of N pairs; with an AnswerObjective, of N answers.
        """
        self.seen.append(pairs)

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Compute the means over the items of all ranks since the last call. Every rank must make the call.

        Args:
            accelerator: Connects the ranks.

        Returns:
            The mean of each metric, by the objective's names. Empty if no rank has collected an item.
        """
        names = self.objective.names
        sums = torch.zeros(len(names) + 1, dtype=torch.float64)
        for pairs in (seen.to_float64() for seen in self.seen):
            items = self.objective.items(pairs)
            sums += torch.cat((items @ self.objective.measure(pairs), items.sum()[None]))
        self.seen.clear()
        *totals, count = accelerator.reduce(sums.to(accelerator.device), reduction="sum").tolist()
        self.loss_sum += totals[0]
        self.num_items += count
        return {name: total / count for name, total in zip(names, totals, strict=True)} if count else {}

    def mean_loss(self) -> float:
        """Return the mean loss over all items of all calls of means; 0 if there are none."""
        return self.loss_sum / self.num_items if self.num_items else 0.0
