"""Runs the reference model over the pairs of a data set that are not in the reference cache."""

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
"""Micro-batches that each rank computes between two writes to the cache, and that an interruption loses at most."""
NUM_CHECKED = 3
"""Number of cache entries that are recomputed at each start."""


class ReferencePass:
    """Computes the missing log-probabilities on all ranks, and adds them to the cache during the pass.

    Args:
        forward: Function from a pack, on any device, to its log-probabilities under the reference model, nats, float32
            (2 x pairs,).
        cache: The reference cache. Only the main process reads and writes it.
        accelerator: Connects the ranks.
        pairs_at_once: Pairs per micro-batch, on average.
        max_tokens: Most tokens per micro-batch. None: no bound.
        dtype: The dtype that the reference model computes in.
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
        """Seconds spent on computing missing log-probabilities."""

    def run(self, pairs: Dataset, name: str) -> torch.Tensor:
        """Return the log-probabilities of pairs under the reference model.

        Args:
            pairs: Pairs as token ids.
            name: Name of the data set in the progress bar.

        Returns:
            Chosen and rejected of each pair, nats, float32 (pairs, 2), on the CPU.

        Raises:
            ConfigError: if the cache cannot be written to.
            ModelError: if the cache and the reference model disagree.
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
        """Compute the missing rows on all ranks.

        Args:
            pairs: Pairs as token ids.
            missing: Row numbers to compute, int64 (rows,).
            name: Name of the data set in the progress bar.

        Yields:
            On every rank, row numbers of one block of all ranks, and their log-probabilities, float32 (rows, 2).
        """
        own_rank, is_main = self.accelerator.process_index, self.accelerator.is_main_process
        tokens = count_tokens(pairs)
        plan = plan_all(
            [tokens[row] for row in missing],
            pairs_at_once=self.pairs_at_once,
            world_size=self.accelerator.num_processes,
            max_tokens=self.max_tokens,
        )
        with tqdm(
            total=len(missing), desc=f"reference model, {name}", unit=" pairs", disable=not is_main, leave=False
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
        """Recompute a few of the entries that the cache returned.

        Raises:
            ModelError: if a recomputed entry differs from the cached one.
        """
        for row in random.Random(len(known)).sample(known.tolist(), min(NUM_CHECKED, len(known))):
            again = self.forward(pack_pairs([pairs[row]], [row])).cpu().numpy()
            if not np.allclose(logps[row], again, rtol=TOLERANCE[self.dtype], atol=TOLERANCE[self.dtype]):
                raise ModelError(
                    f"--reference_cache: {self.cache.folder} contains the log-probabilities {logps[row]} of a pair, "
                    f"but the reference model gives {again}.\n  The files are damaged, or the installed libraries "
                    "compute differently now. Delete the folder, or pass --no-reference_cache."
                )
