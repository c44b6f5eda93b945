"""Tables and JSON of one or several models, from known numbers."""

from dpo.evaluation.measures import Measure, accuracy
from dpo.evaluation.tables import as_json, as_markdown


def perplexity(value: float) -> Measure:
    return Measure(value=value, stderr=0.3, num_items=1200)


RESULTS = {
    "base": {"facts": accuracy({"a": True, "b": False}), "perplexity": perplexity(9.0)},
    "tuned": {"facts": accuracy({"a": True, "b": True}), "perplexity": perplexity(8.6), "pairs": perplexity(1.0)},
}


def test_one_model_is_a_column_of_values_with_their_errors() -> None:
    assert as_markdown({"base": RESULTS["base"]}) == (
        "| measure    | n     | base            |\n"
        "| ---------- | ----- | --------------- |\n"
        "| facts      | 2     | 0.5000 ± 0.5000 |\n"
        "| perplexity | 1,200 | 9.0000 ± 0.3000 |"
    )


def test_the_table_of_two_models_has_differences_and_marks_unpaired_ones() -> None:
    assert as_markdown(RESULTS) == (
        "| measure    | n     | base            | tuned           | tuned - base       |\n"
        "| ---------- | ----- | --------------- | --------------- | ------------------ |\n"
        "| facts      | 2     | 0.5000 ± 0.5000 | 1.0000 ± 0.0000 | +0.5000 ± 0.5000   |\n"
        "| perplexity | 1,200 | 9.0000 ± 0.3000 | 8.6000 ± 0.3000 | -0.4000 ± 0.4243 * |\n"
        "| pairs      | 1,200 |                 | 1.0000 ± 0.3000 |                    |\n"
        "\n"
        "The standard error of a difference is that of the item-by-item differences, unless marked *.\n"
        "\n"
        "* Computed from both models' standard errors, as if they had answered different items."
    )


def test_numbers_of_items_that_differ_are_both_shown() -> None:
    results = {"a|b": {"facts": accuracy({"a": True})}, "c": {"facts": accuracy({"a": True, "b": True})}}
    assert "| facts   | 1 / 2 |" in as_markdown(results)
    assert "a\\|b" in as_markdown(results)


def test_the_json_has_the_same_numbers_unrounded() -> None:
    content = as_json(RESULTS)
    assert content["models"]["base"]["measures"]["facts"] == {
        "value": 0.5,
        "stderr": 0.5,  # sqrt(0.5 * 0.5 / 1)
        "num_items": 2,
    }
    assert content["differences_from"] == "base"
    assert content["differences"].keys() == {"tuned"}
    assert content["differences"]["tuned"].keys() == {"facts", "perplexity"}
    assert content["differences"]["tuned"]["facts"] == {"value": 0.5, "stderr": 0.5, "is_paired": True}
    assert "differences" not in as_json({"base": RESULTS["base"]})


def test_models_without_a_row_in_common_have_no_difference() -> None:
    results = {"base": {"facts": accuracy({"a": True})}, "other": {"pairs": accuracy({"a": True})}}
    assert "other - base" not in as_markdown(results) and "difference" not in as_markdown(results)
    assert "differences" not in as_json(results)


def test_each_later_model_is_compared_with_the_first() -> None:
    results = {**RESULTS, "third": {"facts": accuracy({"a": False, "b": False})}}
    heading, _, facts, perplexity, *_ = [line.split(" | ") for line in as_markdown(results).splitlines()]
    assert [cell.strip(" |") for cell in heading[-2:]] == ["tuned - base", "third - base"]
    assert [cell.strip(" |") for cell in facts[-2:]] == ["+0.5000 ± 0.5000", "-0.5000 ± 0.5000"]
    assert [cell.strip(" |") for cell in perplexity[-2:]] == ["-0.4000 ± 0.4243 *", ""]
