"""Tests of dpo.data.cleaning.mixing: caps, weights and balanced lengths."""

from collections import Counter

import pytest

from dpo.data.cleaning.mixing import above_cap, above_weights, unbalanced

KEYS = [bytes([i]) * 4 for i in range(256)]


class TestCap:
    def test_no_group_has_more_than_its_cap(self) -> None:
        groups = ["a"] * 5 + ["b"] * 2 + ["a"] * 3
        left_out = above_cap(groups, 3, KEYS[:10], seed=0)
        assert Counter(group for i, group in enumerate(groups) if i not in left_out) == {"a": 3, "b": 2}
        assert left_out == sorted(left_out)

    def test_the_choice_depends_on_the_seed_and_not_on_the_order(self) -> None:
        groups = ["a"] * 50
        first = {KEYS[i] for i in above_cap(groups, 10, KEYS[:50], seed=1)}
        turned = KEYS[:50][::-1]
        assert {turned[i] for i in above_cap(groups, 10, turned, seed=1)} == first
        assert {KEYS[i] for i in above_cap(groups, 10, KEYS[:50], seed=2)} != first

    def test_a_smaller_cap_keeps_a_subset_of_what_a_larger_one_keeps(self) -> None:
        groups = ["a"] * 50
        assert set(above_cap(groups, 10, KEYS[:50], 0)) < set(above_cap(groups, 5, KEYS[:50], 0))


class TestWeights:
    def left(self, sizes: dict[str, int], weights: dict[str, float]) -> dict[str, int]:
        sources = [name for name, size in sizes.items() for _ in range(size)]
        left_out = set(above_weights(sources, weights, KEYS[: len(sources)], seed=0))
        return dict(Counter(source for i, source in enumerate(sources) if i not in left_out))

    @pytest.mark.parametrize(
        ("sizes", "weights", "left"),
        [
            ({"a": 60, "b": 60}, {"a": 3, "b": 1}, {"a": 60, "b": 20}),
            ({"a": 10, "b": 100}, {"a": 1, "b": 2}, {"a": 10, "b": 20}),
            ({"a": 10, "b": 20, "c": 30}, {"a": 0.1, "b": 0.2, "c": 0.3}, {"a": 10, "b": 20, "c": 30}),
            ({"a": 7}, {"a": 5}, {"a": 7}),
            ({"a": 8, "b": 0}, {"a": 1, "b": 1}, {"a": 8}),
        ],
    )
    def test_sources_have_the_proportions_of_their_weights_and_the_scarcest_keeps_all(
        self, sizes: dict[str, int], weights: dict[str, float], left: dict[str, int]
    ) -> None:
        assert self.left(sizes, weights) == left


class TestBalance:
    def test_both_signs_are_equally_frequent_at_every_size(self) -> None:
        differences = [1] * 7 + [-1] * 3 + [0] * 4 + [100] * 5 + [-70] * 2 + [1000]
        left_out = unbalanced(differences, KEYS[: len(differences)], seed=0)
        left = Counter(d for i, d in enumerate(differences) if i not in left_out)
        assert left == {1: 3, -1: 3, 0: 4, 100: 2, -70: 2}

    def test_balanced_pairs_are_all_kept(self) -> None:
        assert unbalanced([3, -3, 0, -2, 2], KEYS[:5], seed=0) == []
