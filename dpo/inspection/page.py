"""The report as one self-contained HTML page, which loads nothing from the network."""

__all__ = ["Token", "render_page", "tokens_of"]

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from tokenizers.decoders import DecodeStream

from dpo.data.rendering.tokenization import Tokenizer
from dpo.inspection.plots import plots
from dpo.inspection.statistics import Statistics
from dpo.inspection.tables import sections

NUM_TOKENS = 600
"""Largest number of tokens to show for each part of the example pair."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token as the page shows it."""

    id: int
    text: str
    part: str
    """prompt, chosen or rejected."""
    is_end: bool


def tokens_of(pair: dict[str, Any], tokenizer: Tokenizer) -> dict[str, list[Token]]:
    """Return the tokens of a prepared pair, by part. Of parts longer than NUM_TOKENS, only the end is returned.

    If a character consists of several tokens, its text is that of the last one.
    """
    shown = {}
    for part in ("prompt", "chosen", "rejected"):
        if not (ids := pair[f"{part}_ids"]):
            continue
        stream = DecodeStream(skip_special_tokens=False)
        tokens = [
            Token(
                id=token,
                text=stream.step(tokenizer.backend, token) or "",
                part=part,
                is_end=part != "prompt" and place == len(ids) - 1,
            )
            for place, token in enumerate(ids)
        ]
        shown[part] = tokens[-NUM_TOKENS:]
    return shown


def render_page(
    statistics: Statistics, *, title: str, tokens: dict[str, list[Token]], failures: Sequence[str] = ()
) -> str:
    """Render the page as HTML. About 5 MB of it are Plotly.

    Args:
        statistics: The statistics to show.
        title: Names of the inspected sources, or the prepared folder.
        tokens: Tokens of one pair, by part.
        failures: Messages about measures above their thresholds.
    """
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    figures = {
        place: figure.to_html(full_html=False, include_plotlyjs=False, div_id=place, config={"displayModeBar": False})
        for place, figure in plots(statistics).items()
    }
    return environment.get_template("page.html.jinja").render(
        title=title,
        statistics=statistics,
        figures=figures,
        sections=[(heading, rows) for heading, rows in sections(statistics) if rows],
        tokens=tokens,
        failures=failures,
        data=json.dumps(statistics.as_json()).replace("<", "\\u003c"),  # otherwise a name could end the script element
        plotly=get_plotlyjs(),
    )
