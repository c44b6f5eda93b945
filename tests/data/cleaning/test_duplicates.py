"""Duplicates and conflicts, by keys."""

from dpo.data.cleaning.duplicates import find_conflicts, find_duplicates

A, B, C, D = ((name, b"chosen", b"rejected") for name in (b"a", b"b", b"c", b"d"))


def test_each_repetition_names_the_first_of_its_kind():
    assert list(find_duplicates([A, B, A, C, A, B])) == [(2, 0), (4, 0), (5, 1)]


def test_one_part_that_differs_makes_no_duplicate():
    assert not list(find_duplicates([A, (b"a", b"chosen", b"other"), (b"a", b"other", b"rejected")]))


def test_both_sides_of_a_conflict_are_found():
    swapped = (b"b", b"rejected", b"chosen")
    assert list(find_conflicts([A, B, swapped, C])) == [(1, 2), (2, 1)]


def test_answers_the_other_way_round_of_another_prompt_are_no_conflict():
    assert not list(find_conflicts([A, (b"d", b"rejected", b"chosen")]))


def test_a_pair_of_equal_answers_does_not_conflict_with_itself():
    assert not list(find_conflicts([(b"a", b"same", b"same")] * 2))
