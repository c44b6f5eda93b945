"""TRL's trainer on our token ids: the padded engine."""

__all__ = ["EpochOrder", "PreferenceTrainer"]

import resource
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainingArguments
from trl import DPOTrainer

from dpo.training.planning import epoch_order


class PreferenceTrainer(DPOTrainer):
    """trl.DPOTrainer, given pairs that are tokenized, split and filtered already.

    Overridden: `_prepare_dataset`, which would render and tokenize once more, and `_get_train_sampler`, so that both
    engines take the same pairs in the same step.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.order = EpochOrder.of(self.args, len(self.train_dataset))
        self.add_callback(FollowEpochs(self.order))

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"])

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.args.train_sampling_strategy in ("random", "sequential"):
            return self.order
        return super()._get_train_sampler(train_dataset)

    def ordinary_attention(self) -> AbstractContextManager[None]:
        """The attention to generate with."""
        return nullcontext()

    def totals(self) -> dict[str, Any]:
        """What the run took, for its report. Every rank must call it."""
        return {"engine": "padded", "reference_runtime": 0.0, "peak_memory_gib": self.peak_memory_gib()}

    def peak_memory_gib(self) -> float:
        """Largest of all ranks: of the device's memory, or of the process's where it computes on a CPU."""
        if self.args.device.type == "cpu":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        else:
            peak = torch.accelerator.max_memory_allocated()
        peaks = self.accelerator.gather(torch.tensor([peak / 2**30], device=self.args.device))
        return round(float(peaks.max()), 3)


class EpochOrder(Sampler[int]):
    """The rows of a data set in the order of the current epoch, the same on every rank.

    Args:
        num_pairs: Size of the data set.
        seed: Same seed and epoch, same order.
        shuffle: Whether to shuffle at all.
    """

    def __init__(self, num_pairs: int, *, seed: int, shuffle: bool) -> None:
        self.num_pairs = num_pairs
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    @classmethod
    def of(cls, args: TrainingArguments, num_pairs: int) -> "EpochOrder":
        """As the flags say."""
        seed = args.seed if args.data_seed is None else args.data_seed
        return cls(num_pairs, seed=seed, shuffle=args.train_sampling_strategy != "sequential")

    def __len__(self) -> int:
        return self.num_pairs

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            return iter(range(self.num_pairs))
        return iter(epoch_order(self.num_pairs, seed=self.seed, epoch=self.epoch))


class FollowEpochs(TrainerCallback):
    """Keeps an order's epoch that of the run, also where a run goes on from a checkpoint."""

    def __init__(self, order: EpochOrder) -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.order.epoch = int(state.epoch)
