"""The pass of the reference over a data set, as far as the cache does not know it yet."""

__all__ = ["ReferencePass"]

import random
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from tqdm import tqdm

from dpo.engine.forward import TOLERANCE
from dpo.engine.loading import count_tokens
from dpo.engine.packing import Pack, pack_pairs
from dpo.engine.planning import plan_all
from dpo.engine.reference_cache import ReferenceCache, pair_digest
from dpo.errors import ModelError

BLOCK = 8
"""Micro-batches a rank computes before what they gave is kept. An interrupted pass loses so many at most."""
NUM_CHECKED = 3
"""Entries that are recomputed at each start."""


class ReferencePass:
    """Computes what is missing, on all ranks, and keeps it as it goes.

    Args:
        forward: A pack, on any device -> the reference's log-probabilities, float32 (2 x pairs,).
        cache: Where they are kept. The main process's counts.
        accelerator: The ranks.
        pairs_at_once: Pairs in a micro-batch, on average.
        max_tokens: Most tokens in a micro-batch.
        dtype: What computes.
    """

    def __init__(
        self,
        forward: Callable[[Pack], torch.Tensor],
        cache: ReferenceCache,
        accelerator: Accelerator,
        *,
        pairs_at_once: int,
        max_tokens: int | None,
        dtype: torch.dtype,
    ) -> None:
        self.forward = forward
        self.cache = cache
        self.accelerator = accelerator
        self.pairs_at_once = pairs_at_once
        self.max_tokens = max_tokens
        self.dtype = dtype
        self.runtime_s = 0.0
        """Seconds spent on what was missing."""

    def run(self, pairs: Dataset, name: str) -> torch.Tensor:
        """The reference's log-probabilities of pairs, nats, float32 (pairs, 2): chosen and rejected.

        Args:
            pairs: Pairs as token ids.
            name: For the progress bar.

        Raises:
            ModelError: the cache holds other numbers than the reference gives.
        """
        is_main = self.accelerator.is_main_process
        digests = [pair_digest(pair) for pair in pairs] if is_main else []
        logps: np.ndarray = broadcast_object_list([self.cache.load(digests) if is_main else None])[0]
        is_missing = np.isnan(logps[:, 0])
        self.check(pairs, logps, np.flatnonzero(~is_missing))
        if is_missing.any():
            start = time.time()
            for rows, values in self.compute(pairs, np.flatnonzero(is_missing), name):
                logps[rows] = values
                if is_main:
                    self.cache.add([digests[row] for row in rows], values)
            self.runtime_s += time.time() - start
        return torch.from_numpy(logps)

    def compute(self, pairs: Dataset, missing: np.ndarray, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Work through rows on all ranks; on each rank, yields some rows of all, and their log-probabilities."""
        own_rank, is_main = self.accelerator.process_index, self.accelerator.is_main_process
        tokens = count_tokens(pairs)
        plan = plan_all(
            [tokens[row] for row in missing],
            pairs_at_once=self.pairs_at_once,
            world_size=self.accelerator.num_processes,
            max_tokens=self.max_tokens,
        )
        with tqdm(
            total=len(missing), desc=f"reference, {name}", unit=" pairs", disable=not is_main, leave=False
        ) as progress:
            for start in range(0, len(plan), BLOCK):
                computed: list[tuple[np.ndarray, np.ndarray]] = []
                for micro_batches in plan[start : start + BLOCK]:
                    own = micro_batches[own_rank]
                    rows = missing[list(own.pairs)]
                    values = self.forward(pack_pairs(pairs.select(rows).to_list(), rows.tolist()))
                    if not own.is_filler:
                        computed.append((rows, values.view(-1, 2).cpu().numpy()))
                    progress.update(sum(len(batch.pairs) for batch in micro_batches if not batch.is_filler))
                block = gather_object(computed)
                yield np.concatenate([rows for rows, _ in block]), np.concatenate([values for _, values in block])

    def check(self, pairs: Dataset, logps: np.ndarray, known: np.ndarray) -> None:
        """Recompute a few entries that the cache gave."""
        for row in random.Random(len(known)).sample(known.tolist(), min(NUM_CHECKED, len(known))):
            again = self.forward(pack_pairs([pairs[row]], [row])).cpu().numpy()
            if not np.allclose(logps[row], again, rtol=TOLERANCE[self.dtype], atol=TOLERANCE[self.dtype]):
                raise ModelError(
                    f"--reference_cache: {self.cache.folder} holds {logps[row]} for a pair whose log-probabilities "
                    f"are {again}.\n  The files were damaged, or the libraries compute otherwise now: delete the "
                    "folder, or pass --no-reference_cache."
                )
