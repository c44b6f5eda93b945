"""Tests of the argilla_ultrafeedback adapter: two conversations and their ratings."""

from dpo.adapters import get_adapter
from tests.adapters.rows import convert, reasons

ROW = dict(get_adapter("argilla_ultrafeedback").examples[0][0])


def test_ratings_become_scores_so_that_ties_are_found() -> None:
    (pair,) = convert("argilla_ultrafeedback", ROW | {"chosen-rating": 4, "rejected-rating": 4.0})
    assert pair.score_chosen == pair.score_rejected == 4.0  # type: ignore[union-attr]


def test_a_row_without_a_rating_is_malformed() -> None:
    assert reasons("argilla_ultrafeedback", {k: v for k, v in ROW.items() if k != "chosen-rating"}) == ["malformed_row"]
