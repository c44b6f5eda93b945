"""Search for exact duplicates and for conflicts between pairs. The functions are pure."""

__all__ = ["PairKey", "find_conflicts", "find_duplicates"]

from collections.abc import Iterator, Sequence

PairKey = tuple[bytes, bytes, bytes]
"""Hashes of prompt, chosen and rejected."""


def find_duplicates(keys: Sequence[PairKey]) -> Iterator[tuple[int, int]]:
    """Yield the pairs that are equal to an earlier pair, as (index, index of the first equal pair)."""
    first: dict[PairKey, int] = {}
    for i, key in enumerate(keys):
        if (original := first.setdefault(key, i)) != i:
            yield i, original


def find_conflicts(keys: Sequence[PairKey]) -> Iterator[tuple[int, int]]:
    """Yield the pairs that conflict with another pair, as (index, index of the other pair).

    Two pairs conflict if they have the same prompt and their chosen and rejected answers are swapped. Both are yielded.
    """
    place = {key: i for i, key in enumerate(keys)}
    for i, (prompt, chosen, rejected) in enumerate(keys):
        other = place.get((prompt, rejected, chosen))
        if other is not None and chosen != rejected:
            yield i, other
