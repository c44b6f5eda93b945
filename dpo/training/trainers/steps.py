"""The optimizer steps of a whole run: which rows each step takes, and how many micro-batches it needs."""

__all__ = ["micro_batches_for", "steps_of_run"]

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from dpo.engine.order import EpochOrder
from dpo.engine.planning import num_micro_batches_within, steps_of
from dpo.errors import ConfigError
from dpo.training.settings.resolving import TrainingConfig


def steps_of_run(args: TrainingConfig, num_pairs: int) -> Iterator[Sequence[int]]:
    """The rows of each optimizer step of a run, in order.

    Args:
        args: The run's settings.
        num_pairs: Rows in the training data.
    """
    order = EpochOrder.of(args, num_pairs)
    global_batch_size = args.global_batch_size or 1
    per_epoch = len(steps_of(order, global_batch_size=global_batch_size, drop_last=args.dataloader_drop_last))
    left = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * per_epoch)
    while left > 0:
        steps = steps_of(order, global_batch_size=global_batch_size, drop_last=args.dataloader_drop_last)
        yield from steps[:left]
        left -= len(steps)
        order.epoch += 1


def micro_batches_for(
    args: TrainingConfig, tokens: Sequence[int], steps: Iterable[Sequence[int]], name: Callable[[int], str]
) -> int:
    """The number of accumulation steps at which no micro-batch exceeds max_tokens_per_micro_batch.

    DeepSpeed and transformers need one number for all steps, so the step with the most tokens decides.

    Args:
        args: The run's settings.
        tokens: Packed length of each pair in tokens, with its prompt once.
        steps: The rows of each optimizer step.
        name: Gives the name of a row for an error.

    Raises:
        ConfigError: if a single pair exceeds the bound.
    """
    number, limit = args.gradient_accumulation_steps or 1, args.max_tokens_per_micro_batch
    if limit is None:
        return number
    longest = int(np.argmax(tokens))
    if tokens[longest] > limit:
        raise ConfigError(
            f"--max_tokens_per_micro_batch {limit}: {name(longest)} has {tokens[longest]} tokens, which is above the "
            f"limit.\n  Pass --max_tokens_per_micro_batch {tokens[longest]} or more, or lower --max_length."
        )
    for step in steps:
        lengths = [tokens[pair] for pair in step]
        number = num_micro_batches_within(lengths, world_size=args.world_size, at_least=number, max_tokens=limit)
    return number
