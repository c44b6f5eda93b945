"""What is logged: means over the items of all ranks, pairs or answer tokens, whatever micro-batch each was in."""

__all__ = ["Metrics"]

import torch
from accelerate import Accelerator

from dpo.objective.losses import Pairs
from dpo.objective.terms import Objective


class Metrics:
    """Collects log-probabilities until they are logged.

    Args:
        objective: What the run minimizes.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.seen: list[Pairs] = []
        self.loss_sum = 0.0
        self.num_items = 0.0

    def add(self, pairs: Pairs) -> None:
        """Take in pairs."""
        self.seen.append(pairs)

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over every rank's items since the last call, which every rank must make.

        Returns:
            By the objective's names; empty where no rank has seen an item.
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
        """Over all items that means were ever taken of; 0 of none."""
        return self.loss_sum / self.num_items if self.num_items else 0.0
