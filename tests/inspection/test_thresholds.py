"""Tests of dpo.inspection.thresholds: NAME>NUMBER and NAME>NUMBER%."""

import re
from dataclasses import replace

import pytest

from dpo.adapters import get_adapter
from dpo.errors import ConfigError
from dpo.inspection.thresholds import parse_threshold, reasons_of
from dpo.records import Drop
from tests.builders import ROOT

MEASURES = {"share": (7, 1000), "tie": (26, 201), "too_few_answers": (1, 201), "longer_wins": (120.5, 200)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tie>5%", "tie>5%: 26 of 201, 12.94%"),
        ("tie>26", None),
        ("tie > 25", "tie > 25: 26 of 201, 12.94%"),
        ("tie>12.9%", "tie>12.9%: 26 of 201, 12.94%"),
        ("tie>13%", None),
        ("share>0.7%", None),
        ("empty_chosen>0", None),
        ("leakage>0", None),
        ("too_few_answers>0", "too_few_answers>0: 1 of 201, 0.50%"),
        ("longer_wins>60%", "longer_wins>60%: 120.5 of 200, 60.25%"),
    ],
)
def test_a_limit_is_a_count_or_a_share_and_inclusive(text: str, message: str | None):
    assert parse_threshold(text, {"share"}).failure(MEASURES) == message


@pytest.mark.parametrize("text", ["tie", "tie>", "tie>5%%", "tie<5", "tie>=5", ">5", "tie>-1", "tie>five"])
def test_a_text_that_is_not_a_threshold_is_an_error(text: str):
    with pytest.raises(ConfigError, match="NAME>NUMBER"):
        parse_threshold(text)


def test_an_unknown_measure_is_an_error_with_a_suggestion():
    with pytest.raises(ConfigError, match="unknown measure 'duplicates'\\. Did you mean duplicate"):
        parse_threshold("duplicates>0")


def test_the_reasons_of_an_adapter_s_examples_are_measures():
    nectar = get_adapter("nectar")
    own = replace(nectar, examples=(*nectar.examples, ({}, [Drop("outvoted")])))
    assert parse_threshold("outvoted>0", reasons_of([own])).failure({}) is None
    with pytest.raises(ConfigError, match="unknown measure 'outvoted'"):
        parse_threshold("outvoted>0", reasons_of([nectar]))


def test_every_reason_in_the_documentation_is_a_measure():
    page = (ROOT / "docs" / "reference" / "reasons.md").read_text(encoding="utf-8")
    of_inspect = page.partition("## Reasons of dpo generate")[0]
    cells = [line.split("|")[1] for line in of_inspect.splitlines() if line.startswith("| `")]
    reasons = [reason for cell in cells for reason in re.findall(r"`(\w+)`", cell)]
    assert len(reasons) > 30
    for reason in reasons:
        assert parse_threshold(f"{reason}>0").measure == reason
