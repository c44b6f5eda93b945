"""Plans which pairs form an optimizer step, and which micro-batch of which rank takes each pair.

    order of an epoch:   7 2 5 0 | 3 6 1 4 | ...        depends only on seed and epoch
    one step:            7 2 5 0                        global_batch_size pairs, or fewer in an epoch's last step
    dealt, longest first, to micro-batches x ranks:

                 rank 0   rank 1
        first    [7]      [2]          the token counts of all four are as even as whole pairs allow
        second   [5]      [0]

The input is token counts, without torch. Every rank computes the same plan, so the ranks exchange nothing.
"""

__all__ = [
    "MicroBatch",
    "deal",
    "epoch_order",
    "num_micro_batches_within",
    "plan_all",
    "plan_micro_batches",
    "steps_of",
]

import heapq
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TRADE_PARTNERS, TRADES_A_BIN = 4, 4
"""Number of emptiest bins that the fullest bin trades with, and most trades per bin. More gain less than 0.001."""


@dataclass(frozen=True)
class MicroBatch:
    """The pairs that one rank computes at once."""

    pairs: tuple[int, ...]
    """Row numbers in the data set."""
    is_filler: bool = False
    """True if there are fewer pairs than micro-batches. The pair counts in another one, and keeps the ranks in step."""


def deal(tokens: Sequence[int], num_bins: int) -> list[list[int]]:
    """Deal items to bins so that the bins' sums are even: the longest item first, each to the bin with the least sum.

    Graham 1969, Bounds on multiprocessing timing anomalies: the largest sum is at most 4/3 of the best possible one.
    Then the fullest bin trades with the emptiest ones as long as that makes it smaller. With 8 items per bin and 512
    bins, trading raises the mean sum over the largest sum from 0.977 to above 0.99.

    Args:
        tokens: Length of each item, in tokens.
        num_bins: Number of bins, at least 1.

    Returns:
        The indexes of each bin's items, the fullest bin first. Lengths [5, 3, 2] and 2 bins give [[0], [1, 2]].
    """
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    sums = [(0, number) for number in range(num_bins)]
    for item in sorted(range(len(tokens)), key=lambda item: (-tokens[item], item)):
        total, number = sums[0]
        bins[number].append(item)
        heapq.heapreplace(sums, (total + tokens[item], number))
    totals = [0] * num_bins
    for total, number in sums:
        totals[number] = total
    trade(bins, totals, tokens)
    return [bins[number] for number in sorted(range(num_bins), key=lambda number: (-totals[number], number))]


def trade(bins: list[list[int]], totals: list[int], tokens: Sequence[int]) -> None:
    """Trade an item of the fullest bin for a shorter one of an emptier bin, until no trade makes the fullest smaller.

    Args:
        bins: Items of each bin. Changed in place.
        totals: Sum of each bin, in tokens. Changed in place.
        tokens: Length of each item, in tokens.
    """
    for _ in range(TRADES_A_BIN * len(bins)):
        fullest = max(range(len(bins)), key=totals.__getitem__)
        for other in heapq.nsmallest(TRADE_PARTNERS, range(len(bins)), key=totals.__getitem__):
            gap = totals[fullest] - totals[other]
            trades = ((given, taken) for given in bins[fullest] for taken in [*bins[other], None])
            given, taken = min(trades, key=lambda trade: abs(2 * worth(trade, tokens) - gap))
            moved = worth((given, taken), tokens)
            if 0 < moved < gap:
                bins[fullest].remove(given)
                bins[other].append(given)
                if taken is not None:
                    bins[other].remove(taken)
                    bins[fullest].append(taken)
                totals[fullest] -= moved
                totals[other] += moved
                break
        else:
            return


def worth(trade: tuple[int, int | None], tokens: Sequence[int]) -> int:
    """Return the number of tokens that a trade moves. The item taken in return may be None."""
    given, taken = trade
    return tokens[given] - (0 if taken is None else tokens[taken])


def plan_micro_batches(
    pairs: Sequence[int], tokens: Sequence[int], *, world_size: int, num_micro_batches: int
) -> list[list[MicroBatch]]:
    """Deal the pairs of an optimizer step to accumulation steps x ranks.

    Args:
        pairs: Row numbers in the data set, at least one.
        tokens: Packed length of every row of the data set, in tokens.
        world_size: Number of ranks.
        num_micro_batches: Accumulation steps.

    Returns:
        The micro-batch at [accumulation step][rank].
    """
    bins = deal([tokens[pair] for pair in pairs], world_size * num_micro_batches)
    shortest = min(pairs, key=lambda pair: (tokens[pair], pair))
    batches = [
        MicroBatch(tuple(pairs[item] for item in items)) if items else MicroBatch((shortest,), is_filler=True)
        for items in bins
    ]
    # Micro-batches of similar size run at the same time, so that no rank waits. Ranks take turns with the larger ones.
    rows = [batches[start : start + world_size] for start in range(0, len(batches), world_size)]
    return [row if number % 2 == 0 else row[::-1] for number, row in enumerate(rows)]


def epoch_order(num_pairs: int, *, seed: int, epoch: int) -> list[int]:
    """Shuffle the pairs of a data set for an epoch.

    Args:
        num_pairs: Number of pairs in the data set.
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.

    Returns:
        The row numbers 0 to num_pairs - 1. The same arguments give the same order on every rank.
    """
    order = list(range(num_pairs))
    random.Random(f"{seed} {epoch}").shuffle(order)
    return order


def steps_of(order: Iterable[int], *, global_batch_size: int, drop_last: bool = False) -> list[list[int]]:
    """Split an epoch into optimizer steps, with each pair once.

    Args:
        order: The pairs in the order of the epoch.
        global_batch_size: Pairs per step. The last step takes the remaining pairs.
        drop_last: Whether to leave out a last step with fewer pairs, unless it is the only step.

    Returns:
        The pairs of each step. 10 pairs and a global batch size of 4 give steps of 4, 4 and 2 pairs.
    """
    pairs = list(order)
    steps = [pairs[start : start + global_batch_size] for start in range(0, len(pairs), global_batch_size)]
    return steps[:-1] if drop_last and len(steps) > 1 and len(steps[-1]) < global_batch_size else steps


def plan_all(
    tokens: Sequence[int], *, pairs_at_once: int, world_size: int, max_tokens: int | None = None
) -> list[list[MicroBatch]]:
    """Plan one pass over all pairs, for evaluation and for the reference model.

    Args:
        tokens: Packed length of each pair, in tokens.
        pairs_at_once: Pairs per micro-batch, on average.
        world_size: Number of ranks.
        max_tokens: Most tokens per micro-batch. None: no bound.

    Returns:
        The micro-batch at [number][rank].
    """
    number = math.ceil(len(tokens) / (pairs_at_once * world_size))
    if max_tokens is not None:
        number = num_micro_batches_within(tokens, world_size=world_size, at_least=number, max_tokens=max_tokens)
    return plan_micro_batches(range(len(tokens)), tokens, world_size=world_size, num_micro_batches=number)


def num_micro_batches_within(tokens: Sequence[int], *, world_size: int, at_least: int, max_tokens: int) -> int:
    """Find the smallest number of micro-batches per rank that keeps each micro-batch within max_tokens.

    Args:
        tokens: Length of each item, in tokens. No single item is longer than max_tokens.
        world_size: Number of ranks.
        at_least: Smallest number to try.
        max_tokens: Most tokens per micro-batch.

    Returns:
        Micro-batches per rank. Lengths [700, 600, 500, 400], one rank and 1,100 tokens give 2.
    """
    number = max(at_least, math.ceil(sum(tokens) / (world_size * max_tokens)))
    while max(sum(tokens[item] for item in items) for items in deal(tokens, world_size * number)) > max_tokens:
        number += 1
    return number
