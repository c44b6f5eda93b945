"""Tests of dpo.data.cleaning.duplicates: duplicates and conflicts, found by keys."""

from dpo.data.cleaning.duplicates import find_conflicts, find_duplicates

A, B, C, D = ((name, b"chosen", b"rejected") for name in (b"a", b"b", b"c", b"d"))


def test_each_duplicate_names_the_first_equal_pair():
    assert list(find_duplicates([A, B, A, C, A, B])) == [(2, 0), (4, 0), (5, 1)]


def test_pairs_that_differ_in_one_part_are_not_duplicates():
    assert not list(find_duplicates([A, (b"a", b"chosen", b"other"), (b"a", b"other", b"rejected")]))


def test_both_sides_of_a_conflict_are_found():
    swapped = (b"b", b"rejected", b"chosen")
    assert list(find_conflicts([A, B, swapped, C])) == [(1, 2), (2, 1)]


def test_swapped_answers_to_another_prompt_are_not_a_conflict():
    assert not list(find_conflicts([A, (b"d", b"rejected", b"chosen")]))


def test_a_pair_with_identical_answers_is_not_a_conflict():
    assert not list(find_conflicts([(b"a", b"same", b"same")] * 2))
