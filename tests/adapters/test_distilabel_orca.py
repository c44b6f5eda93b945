"""Tests of the distilabel_orca adapter: marked ties, and ratings that may be missing."""

from typing import Any

import pytest

from dpo.adapters import get_adapter
from tests.adapters.rows import convert, reasons

ROW = dict(get_adapter("distilabel_orca").examples[0][0])


@pytest.mark.parametrize(
    ("change", "scores"),
    [
        ({"rating": [2.0, 9.0]}, (9.0, 2.0)),
        ({"rating": [9.0, 2.0], "status": "unchanged"}, (9.0, 2.0)),
        ({"rating": None, "status": "unchanged"}, (None, None)),
        ({"rating": [8.0, 8.0], "status": "tie"}, (0.0, 0.0)),
        ({"rating": None, "status": "tie"}, (0.0, 0.0)),
        ({"rating": "[2.0, 9.0]"}, (9.0, 2.0)),
        ({"rating": ""}, (None, None)),
    ],
)
def test_chosen_has_the_larger_rating_and_a_tie_has_equal_scores(
    change: dict[str, Any], scores: tuple[float | None, float | None]
) -> None:
    (pair,) = convert("distilabel_orca", ROW | change)
    assert (pair.score_chosen, pair.score_rejected) == scores  # type: ignore[union-attr]


@pytest.mark.parametrize("rating", [[9.0], [9.0, float("nan")], [9.0, None], [], "9.0, 2.0"])
def test_ratings_that_are_not_two_numbers_make_a_malformed_row(rating: Any) -> None:
    assert reasons("distilabel_orca", ROW | {"rating": rating}) == ["malformed_row"]


def test_an_empty_system_column_gives_no_system_message() -> None:
    (pair,) = convert("distilabel_orca", ROW | {"system": ""})
    assert [message.role for message in pair.prompt] == ["user"]  # type: ignore[union-attr]
