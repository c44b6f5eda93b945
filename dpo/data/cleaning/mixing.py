"""Random choice of pairs to leave out, for caps, weights and balanced lengths.

The functions are pure, and the same seed gives the same choice. The order of the choice comes from a hash of the seed
and the pair. It does not depend on the order of the pairs, and a smaller cap keeps a subset of what a larger cap keeps.
"""

__all__ = ["above_cap", "above_weights", "unbalanced"]

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence


def above_cap(
    groups: Sequence[Hashable], cap: int | Mapping[Hashable, int], keys: Sequence[bytes], seed: int
) -> list[int]:
    """Return the indices of pairs to leave out, ascending, so that no group has more pairs than its cap.

    Args:
        groups: The group of each pair, such as its source or its prompt, (N,).
        cap: Largest number of pairs of a group: one number for all groups, or one for each.
        keys: Hash of each pair, equal only for equal pairs, (N,).
        seed: Seed of the random choice.
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
    """Return the indices of pairs to leave out so that the sources have the proportions of their weights.

    No pair is repeated, so the source with the fewest pairs for its weight keeps all of them. Sources without pairs are
    ignored.
    """
    sizes = Counter(sources)
    unit = min((sizes[source] / weight for source, weight in weights.items() if sizes[source]), default=0.0)
    return above_cap(sources, {source: round(unit * weight) for source, weight in weights.items()}, keys, seed)


def unbalanced(differences: Sequence[int], keys: Sequence[bytes], seed: int) -> list[int]:
    """Return the indices of pairs to leave out so that length does not predict which answer is chosen.

    Pairs are binned by the size of the length difference, in powers of two. In each bin, the chosen answer is then the
    longer one as often as the shorter one. Pairs of equal length stay.

    Args:
        differences: Length of chosen minus length of rejected, in tokens, (N,).
        keys: Hash of each pair, equal only for equal pairs, (N,).
        seed: Seed of the random choice.
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
    """Return the indices in a random order that depends on the seed and the keys."""
    salt = seed.to_bytes(8, "big")
    return sorted(indices, key=lambda i: hashlib.blake2b(keys[i], salt=salt).digest())
