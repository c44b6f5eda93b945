"""Means, shares and differences with their standard errors, compared with values computed by hand."""

import math

import pytest

from dpo.evaluation.measures import Measure, accuracy, average, difference, mean


def measure(value: float, stderr: float | None) -> Measure:
    return Measure(value=value, stderr=stderr, num_items=10)


def test_the_error_of_a_mean_is_the_sample_s_deviation_over_the_root_of_n() -> None:
    found = mean({"a": 1.0, "b": 2.0, "c": 6.0})
    assert (found.value, found.num_items) == (3.0, 3)
    assert found.stderr == pytest.approx(math.sqrt(7 / 3))  # (4 + 1 + 9) / 2 = 7
    assert mean({"a": 1.0}).stderr is None


def test_a_share_has_the_error_of_a_mean_of_zeros_and_ones() -> None:
    found = accuracy({"a": True, "b": True, "c": False, "d": True})
    assert (found.value, found.num_items) == (0.75, 4)
    assert found.stderr == pytest.approx(0.25)  # sqrt(0.75 * 0.25 / 3)
    assert found == mean({"a": 1.0, "b": 1.0, "c": 0.0, "d": 1.0})
    assert accuracy({"a": True}).stderr is None


def test_an_average_gives_its_parts_equal_weights() -> None:
    found = average([measure(0.5, 0.3), measure(0.7, 0.4)])
    assert (found.value, found.num_items) == (pytest.approx(0.6), 20)
    assert found.stderr == pytest.approx(0.25)  # sqrt(0.09 + 0.16) / 2
    assert average([measure(0.5, None), measure(0.7, 0.4)]).stderr is None


def test_a_difference_over_the_same_items_is_paired() -> None:
    first, second = accuracy({"a": True, "b": False, "c": True}), accuracy({"c": True, "b": True, "a": True})
    found = difference(first, second)
    assert found.is_paired and found.value == pytest.approx(1 / 3)
    assert found.stderr == pytest.approx(1 / 3)  # of 0, 1, 0: deviation sqrt(1/3), over sqrt(3)
    assert difference(first, first).stderr == 0


def test_a_difference_without_common_items_is_not_paired() -> None:
    first, second = accuracy({"a": True, "b": False}), accuracy({"a": True, "c": False})
    found = difference(first, second)
    assert not found.is_paired and found.value == 0
    assert found.stderr == pytest.approx(math.sqrt(0.5))  # two errors of 0.5
    assert difference(measure(0.2, 0.3), measure(0.7, 0.4)).stderr == pytest.approx(0.5)
    assert difference(measure(0.2, None), measure(0.7, 0.4)).stderr is None


def test_the_difference_of_averages_is_paired_part_by_part() -> None:
    same = accuracy({"a": True, "b": False})
    better = accuracy({"a": True, "b": True})
    found = difference(average([same, same]), average([same, better]))
    assert found.is_paired and found.value == pytest.approx(0.25)
    assert found.stderr == pytest.approx(0.25)  # of 0, 1: deviation sqrt(1/2), over sqrt(2); with 0, over 2 parts
