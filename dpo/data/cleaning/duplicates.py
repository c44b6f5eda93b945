"""What is wrong with a pair only beside others. Each check is a pure function from pairs to those it finds."""

__all__ = ["PairKey", "find_conflicts", "find_duplicates"]

from collections.abc import Iterator, Sequence

PairKey = tuple[bytes, bytes, bytes]
"""Keys of prompt, chosen and rejected."""


def find_duplicates(keys: Sequence[PairKey]) -> Iterator[tuple[int, int]]:
    """Pairs that an earlier one equals to the letter, as (index, index of the first of them)."""
    first: dict[PairKey, int] = {}
    for i, key in enumerate(keys):
        if (original := first.setdefault(key, i)) != i:
            yield i, original


def find_conflicts(keys: Sequence[PairKey]) -> Iterator[tuple[int, int]]:
    """Pairs of which another has the same prompt, and the answers the other way round, as (index, its index).

    Both are found.
    """
    place = {key: i for i, key in enumerate(keys)}
    for i, (prompt, chosen, rejected) in enumerate(keys):
        other = place.get((prompt, rejected, chosen))
        if other is not None and chosen != rejected:
            yield i, other
