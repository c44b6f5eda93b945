"""Which of the pairs that stand by themselves stay, once all are known."""

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
    """Pairs, of which checks one after the other take away.

    Args:
        traits: With the columns of conversion.TRAITS, one row a pair.
    """

    def __init__(self, traits: pa.Table) -> None:
        self.traits = traits
        self.kept = list(range(traits.num_rows))
        """Indices of the pairs that stay, ascending."""
        self.dropped: dict[int, Drop] = {}

    def rows(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Traits of the pairs that stay, of one after the other, so that a million need not be held at once."""
        traits = self.traits.select(names)
        kept = traits.take(pa.array(self.kept, pa.int64())) if self.dropped else traits
        for batch in kept.to_batches(max_chunksize=1000):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def column(self, name: str) -> list[Any]:
        """A trait of the pairs that stay."""
        return [value for (value,) in self.rows(name)]

    def keys(self) -> list[PairKey]:
        return list(self.rows("prompt_key", "chosen_key", "rejected_key"))

    def joined_keys(self) -> list[bytes]:
        return [b"".join(key) for key in self.keys()]

    def names(self) -> list[str]:
        """How a reader finds each pair."""
        return [f"{source}, row {row}" for source, row in self.rows("source", "row")]

    def drop(self, found: Iterable[tuple[int, Drop]]) -> None:
        """Take pairs away, by their place among those that stay."""
        lost = {self.kept[place]: drop for place, drop in found}
        self.dropped |= lost
        self.kept = [i for i in self.kept if i not in lost]

    def drop_beside(self, found: Iterable[tuple[int, int]], reason: str, why: str) -> None:
        """Take pairs away for the sake of another, by the places of both."""
        if places := list(found):
            names = self.names()
            self.drop((place, Drop(reason, f"{why} {names[other]}")) for place, other in places)


def select(
    traits: pa.Table,
    config: DataConfig,
    read: Callable[[int], Preference],
    *,
    held_out: Collection[bytes] = (),
    mixes: bool = True,
) -> Selection:
    """Take away what is wrong beside other pairs, and then what is too much.

    Reasons, in order: duplicate, conflict, near_duplicate, leaked_prompt, above_prompt_limit, above_source_limit,
    length_balance, above_weight. Each check looks at what the one before left.

    Args:
        traits: Of the pairs of one split.
        config: What to look for.
        read: Gives the pair of an index.
        held_out: Keys of the eval sources' prompts.
        mixes: Whether pairs may leave for the sake of the whole: those to train on, and none to evaluate on.
    """
    selection = Selection(traits)
    if config.drop_duplicates != "no":
        selection.drop_beside(find_duplicates(selection.keys()), "duplicate", "repeats")
    if config.drop_conflicts:
        selection.drop_beside(find_conflicts(selection.keys()), "conflict", "has the answers the other way round:")
    if config.drop_duplicates == "near":
        kept = list(selection.kept)
        alike = find_near_duplicates(selection.column("signature"), lambda place: read(kept[place]))
        selection.drop_beside(alike, "near_duplicate", "nearly repeats")
    if config.drop_leaked_prompts:
        prompts = enumerate(selection.column("prompt_key"))
        selection.drop(
            (place, Drop("leaked_prompt", "the prompt stands in the eval sources"))
            for place, prompt in prompts
            if prompt in held_out
        )
    if mixes:
        mix(selection, config)
    return selection


def mix(selection: Selection, config: DataConfig) -> None:
    """Take away what is too much, in the order of the reasons of select."""
    seed = config.seed

    def leave_out(places: list[int], reason: str) -> None:
        selection.drop((place, Drop(reason)) for place in places)

    if config.max_pairs_per_prompt is not None:
        prompts = selection.column("prompt_key")
        leave_out(above_cap(prompts, config.max_pairs_per_prompt, selection.joined_keys(), seed), "above_prompt_limit")
    if config.max_pairs_per_source is not None:
        sources = selection.column("source")
        leave_out(above_cap(sources, config.max_pairs_per_source, selection.joined_keys(), seed), "above_source_limit")
    if config.balance_length:
        differences = [chosen - rejected for chosen, rejected in selection.rows("chosen_length", "rejected_length")]
        leave_out(unbalanced(differences, selection.joined_keys(), seed), "length_balance")
    if config.weights:
        weights = dict(zip(config.datasets, config.weights, strict=True))
        leave_out(above_weights(selection.column("source"), weights, selection.joined_keys(), seed), "above_weight")
