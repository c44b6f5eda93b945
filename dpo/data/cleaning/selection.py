"""Selection of pairs by checks that need all pairs: duplicates, conflicts, leaked prompts, caps, balance, weights."""

__all__ = ["Selection", "select"]

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import pyarrow as pa

from dpo.data.cleaning.duplicates import PairKey, find_conflicts, find_duplicates
from dpo.data.cleaning.mixing import above_cap, above_weights, unbalanced
from dpo.data.cleaning.near_duplicates import find_near_duplicates
from dpo.data.config import DataConfig
from dpo.records import Drop, Preference


class Selection:
    """The pairs that are still kept while one check after another drops some.

    Args:
        traits: Table with the columns of conversion.TRAITS and one row for each pair.
    """

    def __init__(self, traits: pa.Table) -> None:
        self.traits = traits
        self.kept = list(range(traits.num_rows))
        """Indices of the kept pairs, ascending."""
        self.dropped: dict[int, Drop] = {}

    def rows(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Yield traits of the kept pairs one by one, so that they need not all be in memory at once."""
        traits = self.traits.select(names)
        kept = traits.take(pa.array(self.kept, pa.int64())) if self.dropped else traits
        for batch in kept.to_batches(max_chunksize=1000):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def column(self, name: str) -> list[Any]:
        """Return one trait of the kept pairs."""
        return [value for (value,) in self.rows(name)]

    def keys(self) -> list[PairKey]:
        return list(self.rows("prompt_key", "chosen_key", "rejected_key"))

    def joined_keys(self) -> list[bytes]:
        return [b"".join(key) for key in self.keys()]

    def names(self) -> list[str]:
        """Return the source and row of each kept pair, for messages."""
        return [f"{source}, row {row}" for source, row in self.rows("source", "row")]

    def drop(self, found: Iterable[tuple[int, Drop]]) -> None:
        """Drop pairs, given by their place among the kept pairs."""
        drops = {self.kept[place]: drop for place, drop in found}
        self.dropped |= drops
        self.kept = [i for i in self.kept if i not in drops]

    def drop_because_of_others(self, found: Iterable[tuple[int, int]], reason: str, relation: str) -> None:
        """Drop pairs because of other pairs. Both are given by their places among the kept pairs."""
        if places := list(found):
            names = self.names()
            self.drop((place, Drop(reason, f"{relation} {names[other]}")) for place, other in places)


def select(
    traits: pa.Table,
    config: DataConfig,
    read: Callable[[int], Preference],
    *,
    held_out: Collection[bytes] = (),
    mixes: bool = True,
) -> Selection:
    """Drop pairs that repeat, contradict or leak others, and then apply caps, balance and weights.

    The checks run in this order: duplicate, conflict, near_duplicate, leaked_prompt, above_prompt_limit,
    above_source_limit, length_balance, above_weight. Each check sees the pairs that the previous one kept.

    Args:
        traits: Traits of the pairs of one split.
        config: Flags that switch the checks on.
        read: Function that returns the pair with an index.
        held_out: Keys of the prompts of the eval sources.
        mixes: Whether to apply caps, balance and weights: to training pairs, but not to held-out pairs.
    """
    selection = Selection(traits)
    if config.drop_duplicates != "no":
        selection.drop_because_of_others(find_duplicates(selection.keys()), "duplicate", "repeats")
    if config.drop_conflicts:
        conflicts = find_conflicts(selection.keys())
        selection.drop_because_of_others(conflicts, "conflict", "swaps the chosen and rejected answer of")
    if config.drop_duplicates == "near":
        kept = list(selection.kept)
        similar = find_near_duplicates(selection.column("signature"), lambda place: read(kept[place]))
        selection.drop_because_of_others(similar, "near_duplicate", "nearly repeats")
    if config.drop_leaked_prompts:
        prompts = enumerate(selection.column("prompt_key"))
        selection.drop(
            (place, Drop("leaked_prompt", "the prompt is also in the eval sources"))
            for place, prompt in prompts
            if prompt in held_out
        )
    if mixes:
        mix(selection, config)
    return selection


def mix(selection: Selection, config: DataConfig) -> None:
    """Apply caps, balance and weights, in the order given in select."""
    seed = config.seed

    def leave_out(places: list[int], reason: str, flag: str) -> None:
        selection.drop((place, Drop(reason, f"left out at random by {flag}")) for place in places)

    if (cap := config.max_pairs_per_prompt) is not None:
        places = above_cap(selection.column("prompt_key"), cap, selection.joined_keys(), seed)
        leave_out(places, "above_prompt_limit", f"--max_pairs_per_prompt {cap}")
    if (cap := config.max_pairs_per_source) is not None:
        places = above_cap(selection.column("source"), cap, selection.joined_keys(), seed)
        leave_out(places, "above_source_limit", f"--max_pairs_per_source {cap}")
    if config.balance_length:
        differences = [chosen - rejected for chosen, rejected in selection.rows("chosen_length", "rejected_length")]
        leave_out(unbalanced(differences, selection.joined_keys(), seed), "length_balance", "--balance_length")
    if config.weights:
        weights = dict(zip(config.datasets, config.weights, strict=True))
        places = above_weights(selection.column("source"), weights, selection.joined_keys(), seed)
        leave_out(places, "above_weight", "--weights")
