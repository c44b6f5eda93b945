"""Results of one model or several, side by side, as Markdown and as JSON."""

__all__ = ["as_json", "as_markdown"]

from collections.abc import Mapping
from typing import Any

from dpo.evaluation.measures import Difference, Measure, difference

Results = Mapping[str, Mapping[str, Measure]]
"""Model -> row -> what was measured."""


def as_markdown(results: Results) -> str:
    """A table with a column for each model and, where there are several, each other less the first.

    0.5250 ± 0.0800 is a value and its standard error. A difference whose error is not paired is marked with *.
    """
    models = list(results)
    differences = differences_of(results)
    heading = ["measure", "n", *models]
    lines = [[*heading, *(f"{model} - {models[0]}" for model in differences)]]
    for row in rows_of(results):
        measures = [results[model].get(row) for model in models]
        cells = [*measures, *(found.get(row) for found in differences.values())]
        lines.append([row, counts(measures), *("" if found is None else cell(found) for found in cells)])
    table = [markdown_lines(lines)]
    if differences:
        table.append("A difference has the standard error of the differences item by item, except where marked *.")
    if any(not found.is_paired for rows in differences.values() for found in rows.values()):
        table.append("* The models' errors as if they had answered different items.")
    return "\n\n".join(table)


def as_json(results: Results) -> dict[str, Any]:
    """The same numbers, unrounded."""
    models = list(results)
    content: dict[str, Any] = {
        "models": {
            model: {
                "measures": {
                    row: {"value": measure.value, "stderr": measure.stderr, "num_items": measure.num_items}
                    for row, measure in measures.items()
                }
            }
            for model, measures in results.items()
        }
    }
    if differences := differences_of(results):
        content["differences"] = {
            model: {
                row: {"value": found.value, "stderr": found.stderr, "is_paired": found.is_paired}
                for row, found in rows.items()
            }
            for model, rows in differences.items()
        }
        content["differences_from"] = models[0]
    return content


def differences_of(results: Results) -> dict[str, dict[str, Difference]]:
    """Each later model less the first, in each row that both have; none without such a row."""
    models = list(results)
    found = {
        model: {
            row: difference(results[models[0]][row], measure)
            for row, measure in results[model].items()
            if row in results[models[0]]
        }
        for model in models[1:]
    }
    return {model: rows for model, rows in found.items() if rows}


def rows_of(results: Results) -> list[str]:
    """Every row that any model has, in the order of the first model that has it."""
    return list(dict.fromkeys(row for measures in results.values() for row in measures))


def counts(measures: list[Measure | None]) -> str:
    """The number of items; of each model, where they differ since tokenizers do."""
    found = [measure.num_items for measure in measures if measure is not None]
    return " / ".join(f"{count:,}" for count in (found[:1] if len(set(found)) == 1 else found))


def cell(found: Measure | Difference) -> str:
    sign = "+" if isinstance(found, Difference) and found.value >= 0 else ""
    error = "" if found.stderr is None else f" ± {found.stderr:.4f}"
    mark = " *" if isinstance(found, Difference) and not found.is_paired else ""
    return f"{sign}{found.value:.4f}{error}{mark}"


def markdown_lines(lines: list[list[str]]) -> str:
    """Cells as wide as their column, so that the table reads well as text too."""
    cells = [[text.replace("|", "\\|") for text in line] for line in lines]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    rows = [[text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in cells]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
