"""Tests of the shp adapter: two comments and their votes."""

from typing import Any

import pytest

from dpo.adapters import get_adapter
from tests.adapters.rows import convert, reasons

ROW = dict(get_adapter("shp").examples[0][0])


@pytest.mark.parametrize(("labels", "expected"), [(1, ("Neon.", "Oxygen.")), (0, ("Oxygen.", "Neon."))])
def test_the_label_decides_which_comment_is_chosen(labels: int, expected: tuple[str, str]) -> None:
    (preference,) = convert("shp", ROW | {"labels": labels})
    assert (preference.chosen, preference.rejected) == expected  # type: ignore[union-attr]


@pytest.mark.parametrize(("ratio", "smallest", "kept"), [(2.0, 2.0, True), (1.99, 2.0, False), (1.99, 1.5, True)])
def test_pairs_whose_scores_are_close_are_dropped(ratio: float, smallest: float, kept: bool) -> None:
    found = convert("shp", ROW | {"score_ratio": ratio}, min_score_ratio=smallest)
    assert [getattr(candidate, "reason", "kept") for candidate in found] == ["kept" if kept else "low_score_ratio"]


@pytest.mark.parametrize("change", [{"labels": 2}, {"labels": None}, {"score_A": "many"}, {"score_ratio": None}])
def test_a_column_without_a_valid_number_is_a_malformed_row(change: dict[str, Any]) -> None:
    assert reasons("shp", ROW | change) == ["malformed_row"]


def test_numbers_may_be_text_as_in_csv_files() -> None:
    (preference,) = convert("shp", ROW | {"labels": "1", "score_A": "12", "score_B": "3", "score_ratio": "4.0"})
    assert preference.chosen == "Neon."  # type: ignore[union-attr]
    assert (preference.score_chosen, preference.score_rejected) == (12.0, 3.0)  # type: ignore[union-attr]
