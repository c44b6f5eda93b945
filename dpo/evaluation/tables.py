"""Writes the results of one or several models side by side, as Markdown and as JSON."""

__all__ = ["as_json", "as_markdown"]

from collections.abc import Mapping
from typing import Any

from dpo.evaluation.measures import Difference, Measure, difference

Results = Mapping[str, Mapping[str, Measure]]
"""Model -> name of a table row -> measure."""


def as_markdown(results: Results) -> str:
    """Write a table with one column per model, and one column per difference of a later model from the first.

    0.5250 ± 0.0800 is a value with its standard error. A difference whose standard error is not paired is marked *.
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
        table.append("The standard error of a difference is that of the item-by-item differences, unless marked *.")
    if any(not found.is_paired for rows in differences.values() for found in rows.values()):
        table.append("* Computed from both models' standard errors, as if they had answered different items.")
    return "\n\n".join(table)


def as_json(results: Results) -> dict[str, Any]:
    """The numbers of the table, unrounded."""
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
    """Each later model minus the first, for each row that both have. Models without such a row are left out."""
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
    """All rows that at least one model has, in order of first appearance."""
    return list(dict.fromkeys(row for measures in results.values() for row in measures))


def counts(measures: list[Measure | None]) -> str:
    """The number of items: one number, or one per model if tokenizers lead to different numbers."""
    found = [measure.num_items for measure in measures if measure is not None]
    return " / ".join(f"{count:,}" for count in (found[:1] if len(set(found)) == 1 else found))


def cell(found: Measure | Difference) -> str:
    sign = "+" if isinstance(found, Difference) and found.value >= 0 else ""
    error = "" if found.stderr is None else f" ± {found.stderr:.4f}"
    mark = " *" if isinstance(found, Difference) and not found.is_paired else ""
    return f"{sign}{found.value:.4f}{error}{mark}"


def markdown_lines(lines: list[list[str]]) -> str:
    """Format cells as a Markdown table with aligned columns, which is readable as plain text too."""
    cells = [[text.replace("|", "\\|") for text in line] for line in lines]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    rows = [[text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in cells]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
