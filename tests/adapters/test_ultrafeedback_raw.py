"""Tests of the ultrafeedback_raw adapter: answers ranked by the mean of their ratings."""

from tests.adapters.rows import convert, reasons


def completion(response: str, mean: object, overall: float) -> dict[str, object]:
    return {"response": response, "fine-grained_score": mean, "overall_score": overall}


def test_answers_are_ranked_by_the_mean_rating_and_not_by_the_overall_score() -> None:
    rows = [completion("bad", 1.25, 10.0), completion("good", 4.5, 7.5)]
    (pair,) = convert("ultrafeedback_raw", {"instruction": "q", "completions": rows})
    assert (pair.chosen, pair.rejected) == ("good", "bad")  # type: ignore[union-attr]


def test_a_completion_without_a_score_is_a_malformed_row() -> None:
    rows = [completion("a", None, 10.0), completion("b", 4.5, 7.5)]
    assert reasons("ultrafeedback_raw", {"instruction": "q", "completions": rows}) == ["malformed_row"]
