"""Loads this rank's packs from a data set, according to a plan."""

__all__ = ["PARTS", "PackedPairs", "TrainBatches", "count_tokens", "eval_batches", "pack_loader"]

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.compute as pc
import torch
from datasets import Dataset as PairDataset
from torch.utils.data import DataLoader, Dataset, Sampler

from dpo.engine.order import EpochOrder
from dpo.engine.packing import pack_pairs
from dpo.engine.planning import MicroBatch, plan_all, plan_micro_batches, steps_of

PARTS = ("prompt_ids", "chosen_ids", "rejected_ids")
COUNT_ROWS = 10_000
"""Number of rows whose tokens are counted at once."""


def count_tokens(dataset: PairDataset) -> list[int]:
    """Return the packed length of each pair of a data set: its prompt once, and both completions.

    Args:
        dataset: Pairs with prompt_ids, chosen_ids and rejected_ids.

    Returns:
        Length of each pair, in tokens. A prompt of 3, chosen of 2 and rejected of 3 tokens give 8.
    """
    counts: list[int] = []
    for batch in dataset.select_columns(list(PARTS)).with_format("arrow").iter(COUNT_ROWS):
        prompt, chosen, rejected = (pc.list_value_length(batch.column(part)) for part in PARTS)
        counts += pc.add(pc.add(prompt, chosen), rejected).to_pylist()
    return counts


class PackedPairs(Dataset[dict[str, Any]]):
    """Packs of a data set. The index of a pack is the MicroBatch that lists its pairs.

    Args:
        pairs: Pairs with prompt_ids, chosen_ids and rejected_ids.
        reference_logps: Log-probabilities under the reference model, nats, float32 (pairs, 2). None if unknown.
        weights: Weight of each pair in the loss, float32 (pairs,). None: 1.
    """

    def __init__(
        self, pairs: PairDataset, reference_logps: torch.Tensor | None, weights: torch.Tensor | None = None
    ) -> None:
        self.pairs = pairs
        self.reference_logps = reference_logps
        self.weights = weights

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, batch: MicroBatch) -> dict[str, Any]:
        rows = list(batch.pairs)
        known = None if self.reference_logps is None else self.reference_logps[rows].flatten()
        pairs = self.pairs.select(rows).to_list()
        weights = None if self.weights is None else self.weights[rows]
        pack = pack_pairs(pairs, rows, is_filler=batch.is_filler, reference_logps=known, weights=weights)
        return {"input_ids": pack.input_ids, "pack": pack}  # transformers counts tokens by input_ids


class TrainBatches(Sampler[list[MicroBatch]]):
    """This rank's micro-batches of an epoch, in the order of the optimizer steps.

    Args:
        order: The pairs in the order of the epoch.
        tokens: Packed length of each pair, in tokens.
        global_batch_size: Pairs per optimizer step.
        num_micro_batches: Micro-batches per rank and optimizer step.
        rank: This rank.
        world_size: Number of ranks.
        drop_last: Whether to leave out a last step with fewer pairs.
    """

    def __init__(
        self,
        order: EpochOrder,
        tokens: Sequence[int],
        *,
        global_batch_size: int,
        num_micro_batches: int,
        rank: int,
        world_size: int,
        drop_last: bool,
    ) -> None:
        self.order = order
        self.tokens = tokens
        self.global_batch_size = global_batch_size
        self.num_micro_batches = num_micro_batches
        self.rank = rank
        self.world_size = world_size
        self.drop_last = drop_last

    def steps(self) -> list[list[int]]:
        return steps_of(self.order, global_batch_size=self.global_batch_size, drop_last=self.drop_last)

    def __len__(self) -> int:
        return len(self.steps()) * self.num_micro_batches

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        for step in self.steps():
            for row in plan_micro_batches(
                step, self.tokens, world_size=self.world_size, num_micro_batches=self.num_micro_batches
            ):
                yield [row[self.rank]]


def eval_batches(
    tokens: Sequence[int], *, pairs_at_once: int, rank: int, world_size: int, max_tokens: int | None
) -> list[list[MicroBatch]]:
    """Plan this rank's micro-batches of one pass over all pairs.

    Args:
        tokens: Packed length of each pair, in tokens.
        pairs_at_once: Pairs per micro-batch, on average.
        rank: This rank.
        world_size: Number of ranks.
        max_tokens: Most tokens per micro-batch. None: no bound.

    Returns:
        The micro-batches, each in a list of one.
    """
    plan = plan_all(tokens, pairs_at_once=pairs_at_once, world_size=world_size, max_tokens=max_tokens)
    return [[row[rank]] for row in plan]


def pack_loader(pairs: PackedPairs, batches: Any, **options: Any) -> DataLoader[dict[str, Any]]:
    """Build a DataLoader that yields one pack at a time.

    Args:
        pairs: The packs, indexed by MicroBatch.
        batches: This rank's micro-batches, each in a list of one.
        options: Options of torch's DataLoader.
    """
    return DataLoader(pairs, batch_sampler=batches, collate_fn=only_one, **options)


def only_one(items: list[dict[str, Any]]) -> dict[str, Any]:
    (item,) = items
    return item
