"""What was measured of a model, with its standard error, and how two models differ."""

__all__ = ["Difference", "Measure", "accuracy", "average", "difference", "mean"]

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number about a model."""

    value: float
    stderr: float | None
    """Standard error; None where it cannot be told, as of one item."""
    num_items: int
    """Questions or pairs that the value was taken over."""
    items: Mapping[Hashable, float] = field(default_factory=dict, repr=False)
    """What the value is the mean of, so that models are compared item by item. Empty where it is no such mean."""
    parts: Sequence["Measure"] = field(default=(), repr=False)
    """What an average is one of."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much more one model has than another."""

    value: float
    stderr: float | None
    is_paired: bool
    """Whether the standard error is that of the differences item by item, else that of two independent values."""


def mean(items: Mapping[Hashable, float]) -> Measure:
    """The mean of items, at least one, with the sample's deviation / sqrt(n) as its error: 1, 2, 6 give 3 ± 1.53."""
    values = list(items.values())
    stderr = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Measure(value=statistics.fmean(values), stderr=stderr, num_items=len(values), items=items)


def accuracy(items: Mapping[Hashable, bool]) -> Measure:
    """The share of items that are true, a mean of 0 and 1, whose error is sqrt(p (1 - p) / (n - 1)).

    As lm-eval has it, so that benchmarks and pairs of one table are alike. 3 of 4 is 0.75 ± 0.25.
    """
    return mean({item: float(is_right) for item, is_right in items.items()})


def average(parts: Sequence[Measure]) -> Measure:
    """The mean of measures over different items, each weighing the same whatever its number of items."""
    return Measure(
        value=statistics.fmean(part.value for part in parts),
        stderr=stderr_of_mean([part.stderr for part in parts]),
        num_items=sum(part.num_items for part in parts),
        parts=parts,
    )


def difference(first: Measure, second: Measure) -> Difference:
    """What the second has more than the first.

    Over the same items it is paired: the items' own difficulty, which both models share, is no part of its error.
    """
    if first.parts and len(first.parts) == len(second.parts):
        parts = [difference(*both) for both in zip(first.parts, second.parts, strict=True)]
        stderr = stderr_of_mean([part.stderr for part in parts])
        is_paired = all(part.is_paired for part in parts)
        return Difference(value=second.value - first.value, stderr=stderr, is_paired=is_paired)
    if first.items and first.items.keys() == second.items.keys():
        paired = mean({item: second.items[item] - value for item, value in first.items.items()})
        return Difference(value=paired.value, stderr=paired.stderr, is_paired=True)
    known = first.stderr is not None and second.stderr is not None
    stderr = math.hypot(first.stderr or 0, second.stderr or 0) if known else None
    return Difference(value=second.value - first.value, stderr=stderr, is_paired=False)


def stderr_of_mean(stderrs: Sequence[float | None]) -> float | None:
    """Standard error of the mean of independent values: the root of the sum of squares, over their number."""
    known = [stderr for stderr in stderrs if stderr is not None]
    return math.hypot(*known) / len(known) if len(known) == len(stderrs) else None
