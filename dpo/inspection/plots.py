"""The page's plots, as Plotly figures."""

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
    """Figures by the id of their place on the page. What has nothing to show is left out."""
    figures = {"waterfall": waterfall(statistics), "lengths": lengths(statistics), "kept_at": kept_at(statistics)}
    if statistics.length_bias.differences:
        figures["differences"] = histogram(statistics.length_bias.differences, "tokens of chosen less rejected", BLUE)
    if statistics.score_margins:
        figures["margins"] = histogram(statistics.score_margins, "score of chosen less rejected", GREEN)
    return figures


def waterfall(statistics: Statistics) -> go.Figure:
    """From all rows down to the kept ones, one step a reason."""
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
    """How long prompts, answers and whole pairs are, with the bound in force."""
    figure = go.Figure()
    nouns = f"{statistics.report.noun}s"
    for part, colour in (("prompt", GREY), ("chosen", GREEN), ("rejected", ORANGE), ("whole", BLUE)):
        if not (counts := sorted(statistics.lengths(part).items())):
            continue
        figure.add_scatter(
            x=[length for length, _ in counts], y=[count for _, count in counts], name=part, line={"color": colour}
        )
    figure.add_vline(x=statistics.max_length, line_dash="dash", annotation_text=f"max_length {statistics.max_length:,}")
    return figure.update_layout(**LAYOUT, xaxis_title="tokens, in steps of 16", yaxis_title=nouns)


def kept_at(statistics: Statistics) -> go.Figure:
    kept = statistics.kept_at()
    colours = [ORANGE if bound == statistics.max_length else BLUE for bound in kept]
    figure = go.Figure(go.Bar(x=[f"{bound:,}" for bound in kept], y=list(kept.values()), marker_color=colours))
    title = f"{statistics.report.noun}s kept"
    return figure.update_layout(**LAYOUT, xaxis_title="max_length", xaxis_type="category", yaxis_title=title)


def histogram(counts: Counter[int] | Counter[float], title: str, colour: str) -> go.Figure:
    """Bars of what was counted, binned here, so that the page has one number a bar however many pairs there are."""
    bins = binned(counts)
    width = (max(counts) - min(counts)) / NUM_BINS or 1.0
    figure = go.Figure(go.Bar(x=list(bins), y=list(bins.values()), width=width, marker_color=colour))
    figure.add_vline(x=0, line_color=GREY)
    return figure.update_layout(**LAYOUT, xaxis_title=title, yaxis_title="pairs", bargap=0.05)


def binned(counts: Mapping[int, int] | Mapping[float, int]) -> dict[float, int]:
    """Counts by the middle of equal bins between the smallest and the largest value."""
    low, high = min(counts), max(counts)
    width = (high - low) / NUM_BINS or 1.0
    bins: Counter[float] = Counter()
    for value, count in counts.items():
        place = min(int((value - low) / width), NUM_BINS - 1)
        bins[round(low + (place + 0.5) * width, 6)] += count
    return dict(sorted(bins.items()))
