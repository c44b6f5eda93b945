"""The plots of the page, as Plotly figures."""

__all__ = ["plots"]

from collections import Counter
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from dpo.inspection.statistics import Statistics

BLUE, ORANGE, GREEN, GREY = "#3b6ea5", "#d9822b", "#4f8f5b", "#8a8f98"
LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "margin": {"l": 60, "r": 20, "t": 20, "b": 50},
    "height": 320,
    "font": {"family": "system-ui, sans-serif", "size": 13},
}
NUM_BINS = 60


def plots(statistics: Statistics) -> dict[str, go.Figure]:
    """Return the figures by their id on the page. Figures without data are left out."""
    figures = {"waterfall": waterfall(statistics), "lengths": lengths(statistics), "kept_at": kept_at(statistics)}
    if statistics.length_bias.differences:
        figures["differences"] = histogram(
            statistics.length_bias.differences, "tokens of chosen minus tokens of rejected", BLUE
        )
    if statistics.score_margins:
        figures["margins"] = histogram(statistics.score_margins, "score of chosen minus score of rejected", GREEN)
    return figures


def waterfall(statistics: Statistics) -> go.Figure:
    """Plot the steps from all rows to the kept ones, with one step for each reason."""
    total = statistics.report.total()
    dropped = total.dropped.most_common()
    figure = go.Figure(
        go.Waterfall(
            x=["rows", *(reason for reason, _ in dropped), "kept"],
            y=[total.rows, *(-count for _, count in dropped), 0],
            measure=["absolute", *("relative" for _ in dropped), "total"],
            text=[f"{total.rows:,}", *(f"-{count:,}" for _, count in dropped), f"{total.kept:,}"],
            decreasing={"marker": {"color": ORANGE}},
            totals={"marker": {"color": BLUE}},
            connector={"line": {"color": GREY, "width": 1}},
        )
    )
    return figure.update_layout(**LAYOUT, yaxis_title="rows")


def lengths(statistics: Statistics) -> go.Figure:
    """Plot the lengths of prompts, answers and whole pairs, with the current max_length."""
    figure = go.Figure()
    nouns = f"{statistics.report.noun}s"
    for part, colour in (("prompt", GREY), ("chosen", GREEN), ("rejected", ORANGE), ("whole", BLUE)):
        if not (counts := sorted(statistics.lengths(part).items())):
            continue
        figure.add_scatter(
            x=[length for length, _ in counts], y=[count for _, count in counts], name=part, line={"color": colour}
        )
    figure.add_vline(x=statistics.max_length, line_dash="dash", annotation_text=f"max_length {statistics.max_length:,}")
    return figure.update_layout(**LAYOUT, xaxis_title="tokens, rounded up to a multiple of 16", yaxis_title=nouns)


def kept_at(statistics: Statistics) -> go.Figure:
    """Plot the number of pairs that different values of max_length would keep."""
    kept = statistics.kept_at()
    colours = [ORANGE if bound == statistics.max_length else BLUE for bound in kept]
    figure = go.Figure(go.Bar(x=[f"{bound:,}" for bound in kept], y=list(kept.values()), marker_color=colours))
    title = f"{statistics.report.noun}s kept"
    return figure.update_layout(**LAYOUT, xaxis_title="max_length", xaxis_type="category", yaxis_title=title)


def histogram(counts: Counter[int] | Counter[float], title: str, colour: str) -> go.Figure:
    """Plot a histogram. It is binned here, so that the page contains one number for each bar and not for each pair."""
    bins = binned(counts)
    width = (max(counts) - min(counts)) / NUM_BINS or 1.0
    figure = go.Figure(go.Bar(x=list(bins), y=list(bins.values()), width=width, marker_color=colour))
    figure.add_vline(x=0, line_color=GREY)
    return figure.update_layout(**LAYOUT, xaxis_title=title, yaxis_title="pairs", bargap=0.05)


def binned(counts: Mapping[int, int] | Mapping[float, int]) -> dict[float, int]:
    """Return counts by the centre of equally wide bins between the smallest and the largest value."""
    low, high = min(counts), max(counts)
    width = (high - low) / NUM_BINS or 1.0
    bins: Counter[float] = Counter()
    for value, count in counts.items():
        place = min(int((value - low) / width), NUM_BINS - 1)
        bins[round(low + (place + 0.5) * width, 6)] += count
    return dict(sorted(bins.items()))
