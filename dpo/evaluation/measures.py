"""Measures of a model with their standard errors, and differences between two models."""

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
    """Standard error; None if it is not known, as for one item."""
    num_items: int
    """Number of questions or pairs behind the value."""
    items: Mapping[Hashable, float] = field(default_factory=dict, repr=False)
    """The items whose mean is the value, to compare models item by item. Empty if the value is not a mean."""
    parts: Sequence["Measure"] = field(default=(), repr=False)
    """The measures that an average is taken over."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The value of one model minus that of another."""

    value: float
    stderr: float | None
    is_paired: bool
    """Whether the standard error is that of the item-by-item differences. If not, of two independent values."""


def mean(items: Mapping[Hashable, float]) -> Measure:
    """The mean of at least one item. Its standard error is the sample's deviation / sqrt(n): 1, 2, 6 give 3 ± 1.53."""
    values = list(items.values())
    stderr = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Measure(value=statistics.fmean(values), stderr=stderr, num_items=len(values), items=items)


def accuracy(items: Mapping[Hashable, bool]) -> Measure:
    """The share p of items that are true: a mean of zeros and ones. Standard error: sqrt(p (1 - p) / (n - 1)).

    lm-eval uses the same formula, so benchmarks and pairs in one table are comparable. 3 of 4 is 0.75 ± 0.25.
    """
    return mean({item: float(is_right) for item, is_right in items.items()})


def average(parts: Sequence[Measure]) -> Measure:
    """The mean of measures over different items. Each measure has the same weight, whatever its number of items."""
    return Measure(
        value=statistics.fmean(part.value for part in parts),
        stderr=stderr_of_mean([part.stderr for part in parts]),
        num_items=sum(part.num_items for part in parts),
        parts=parts,
    )


def difference(first: Measure, second: Measure) -> Difference:
    """The second value minus the first.

    Over the same items the difference is paired: the difficulty of the items, which both models share, does not add to
    its standard error.
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
