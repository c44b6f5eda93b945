"""The statistics as tables for a terminal."""

__all__ = ["tables"]

from collections import Counter
from collections.abc import Iterable, Sequence

from dpo.inspection.statistics import Statistics, quantile


def tables(statistics: Statistics) -> str:
    """Return the data report and the most important statistics as text."""
    return "\n\n".join(
        [
            statistics.report.table(),
            *(table(heading, rows) for heading, rows in sections(statistics) if rows),
        ]
    )


def sections(statistics: Statistics) -> Iterable[tuple[Sequence[str], list[Sequence[str]]]]:
    """Yield (heading, rows) of every table after the data report."""
    nouns = f"{statistics.report.noun}s"
    labels = {"whole": "prompt + longer answer" if statistics.compares else "prompt + answer"}
    yield (
        ("tokens", "median", "95%", "99%", "longest", "(rounded up to multiples of 16)"),
        [
            (labels.get(part, part), *(f"{quantile(lengths, share):,}" for share in (0.5, 0.95, 0.99, 1.0)))
            for part in ("prompt", "chosen", "rejected", "whole")
            if (lengths := statistics.lengths(part))
        ],
    )
    encoded = statistics.lengths("whole").total()
    yield (
        ("--max_length", f"{nouns} kept", "share of encoded"),
        [
            (f"{bound:,}" + (" (current)" if bound == statistics.max_length else ""), f"{kept:,}", share(kept, encoded))
            for bound, kept in statistics.kept_at().items()
        ],
    )
    bias, pairs, scored = statistics.length_bias, statistics.pairs, statistics.score_margins.total()
    yield (
        ("the chosen answer is", "pairs", "share"),
        [
            ("longer", f"{bias.longer:,}", share(bias.longer, pairs)),
            ("equally long", f"{bias.equal:,}", share(bias.equal, pairs)),
            ("shorter", f"{bias.shorter:,}", share(bias.shorter, pairs)),
            ("accuracy of 'the longer answer wins'", "", f"{bias.accuracy:.1%}"),
        ]
        if statistics.compares
        else [],
    )
    yield (
        (f"dropped, or found in kept {nouns}", "rows", "share"),
        [
            (name, f"{count:,.10g}", share(count, total))
            for name, (count, total) in sorted(statistics.measures().items())
            if name != "longer_wins"
        ],
    )
    yield (
        (f"{nouns} with", nouns, "share"),
        [
            *counted("turns in the prompt: ", statistics.turns, pairs),
            *counted("script: ", statistics.scripts, pairs),
            ("a system message", f"{statistics.systems:,}", share(statistics.systems, pairs)),
            *([("both scores", f"{scored:,}", share(scored, pairs))] if statistics.compares else []),
        ],
    )


def counted(label: str, counts: Counter[int] | Counter[str], total: int) -> list[Sequence[str]]:
    return [(f"{label}{value}", f"{count:,}", share(count, total)) for value, count in counts.most_common(5)]


def share(count: float, total: int) -> str:
    return f"{count / total:.1%}" if total else ""


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(heading), *([*row, *[""] * (len(heading) - len(row))] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heading))]
    text = [
        f"{line[0]:<{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    ]
    return "\n".join([text[0].rstrip(), "-" * max(map(len, text)), *(line.rstrip() for line in text[1:])])
