"""What is too much of: pairs that leave for the sake of the whole. Pure, and the same for the same seed.

Which of several pairs leave is drawn by a hash of seed and pair, so that it does not depend on how the others are
ordered, and a smaller cap keeps a part of what a larger one kept.
"""

__all__ = ["above_cap", "above_weights", "unbalanced"]

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence


def above_cap(
    groups: Sequence[Hashable], cap: int | Mapping[Hashable, int], keys: Sequence[bytes], seed: int
) -> list[int]:
    """Indices to leave out, ascending, so that no group has more than its cap.

    Args:
        groups: What each pair belongs to, such as its source or its prompt, (N,).
        cap: Most pairs of a group, the same for all or of each.
        keys: Equal for equal pairs alone, (N,).
        seed: Chooses which ones stay.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    left_out: list[int] = []
    for group, indices in members.items():
        allowed = cap if isinstance(cap, int) else cap[group]
        if len(indices) > allowed:
            left_out += drawn(indices, keys, seed)[allowed:]
    return sorted(left_out)


def above_weights(sources: Sequence[str], weights: Mapping[str, float], keys: Sequence[bytes], seed: int) -> list[int]:
    """Indices to leave out so that the sources stand in the proportion of their weights, none repeated.

    The scarcest source, measured by its weight, gives all it has. A source without pairs is left out of the account.
    """
    sizes = Counter(sources)
    unit = min((sizes[source] / weight for source, weight in weights.items() if sizes[source]), default=0.0)
    return above_cap(sources, {source: round(unit * weight) for source, weight in weights.items()}, keys, seed)


def unbalanced(differences: Sequence[int], keys: Sequence[bytes], seed: int) -> list[int]:
    """Indices to leave out so that length tells nothing of which answer is the better.

    Pairs are binned by the size of the difference, in powers of two; in each bin the chosen answer is to be as often
    the longer as the shorter one. Pairs of equal length stay.

    Args:
        differences: Length of chosen less that of rejected, (N,).
        keys: Equal for equal pairs alone, (N,).
        seed: Chooses which ones stay.
    """
    sides: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for i, difference in enumerate(differences):
        if difference:
            sides[abs(difference).bit_length()][difference > 0].append(i)
    left_out: list[int] = []
    for shorter, longer in sides.values():
        allowed = min(len(shorter), len(longer))
        for indices in (shorter, longer):
            left_out += drawn(indices, keys, seed)[allowed:]
    return sorted(left_out)


def drawn(indices: Iterable[int], keys: Sequence[bytes], seed: int) -> list[int]:
    """The indices in an order that seed and keys decide."""
    salt = seed.to_bytes(8, "big")
    return sorted(indices, key=lambda i: hashlib.blake2b(keys[i], salt=salt).digest())
