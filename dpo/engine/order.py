"""The order in which an epoch visits the rows of a data set."""

__all__ = ["EpochOrder"]

from collections.abc import Iterator

from torch.utils.data import Sampler
from transformers import TrainingArguments

from dpo.engine.planning import epoch_order


class EpochOrder(Sampler[int]):
    """The rows of a data set in the order of the current epoch, the same on every rank.

    Args:
        num_pairs: Number of rows in the data set.
        seed: Seed of the shuffle. The same seed and epoch give the same order.
        shuffle: Whether to shuffle. False keeps the order of the data set.
    """

    def __init__(self, num_pairs: int, *, seed: int, shuffle: bool) -> None:
        self.num_pairs = num_pairs
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    @classmethod
    def of(cls, args: TrainingArguments, num_pairs: int) -> "EpochOrder":
        """Build the order from the training arguments.

        Args:
            args: data_seed (or seed, if data_seed is None) seeds the shuffle. train_sampling_strategy "sequential"
                turns it off.
            num_pairs: Number of rows in the data set.
        """
        seed = args.seed if args.data_seed is None else args.data_seed
        return cls(num_pairs, seed=seed, shuffle=args.train_sampling_strategy != "sequential")

    def __len__(self) -> int:
        return self.num_pairs

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            return iter(range(self.num_pairs))
        return iter(epoch_order(self.num_pairs, seed=self.seed, epoch=self.epoch))
