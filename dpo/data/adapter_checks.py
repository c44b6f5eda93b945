"""What an adapter promises, checked: its examples come true, and no row makes it raise or lose a pair."""

__all__ = ["check_adapter", "check_malformed_rows"]

import copy
import json
import random
import re
import sys
from collections.abc import Iterator, Sequence
from typing import get_args

from dpo.adapters.base import Adapter, AdapterOptions, Pairing, Row, Turns
from dpo.data.cleaning.filters import check_pair
from dpo.data.config import DataConfig
from dpo.data.conversion import convert_row
from dpo.data.malformed import mutate
from dpo.errors import AdapterError
from dpo.records import Drop, Preference

NUM_MALFORMED_ROWS = 2000
PAIRINGS: tuple[Pairing, ...] = get_args(Pairing)
TURNS: tuple[Turns, ...] = get_args(Turns)


def check_adapter(adapter: Adapter, *, num_malformed_rows: int = NUM_MALFORMED_ROWS) -> list[str]:
    """What is wrong with an adapter, a sentence each; empty where nothing is.

    Args:
        adapter: As its file defines it.
        num_malformed_rows: Rows to make worse and convert.
    """
    if shapeless := list(check_shape(adapter)):
        return shapeless
    complaints = [*check_description(adapter), *check_examples(adapter)]
    if complaints:
        return complaints
    return list(check_malformed_rows(adapter, num_malformed_rows))


def check_shape(adapter: Adapter) -> Iterator[str]:
    """What would make the other checks stumble."""
    if not isinstance(adapter.columns, tuple) or not all(isinstance(column, str) for column in adapter.columns):
        yield f"columns is {adapter.columns!r}, expected a tuple of texts."
    for number, example in enumerate(adapter.examples):
        is_pair = isinstance(example, tuple) and len(example) == 2 and isinstance(example[1], Sequence)
        if not is_pair or not all(isinstance(candidate, Preference | Drop) for candidate in example[1]):
            yield f"example {number} is no (row, [Preference or Drop, ...])."


def check_description(adapter: Adapter) -> Iterator[str]:
    """Its columns and its docstring against its first example."""
    if not adapter.examples:
        yield "EXAMPLES is empty: expected a raw row and what it gives, at least one."
        return
    first, given = adapter.examples[0]
    if not any(isinstance(candidate, Preference) for candidate in given):
        yield "example 0 gives no Preference: the first one is shown to users, so it should give one."
    if missing := [column for column in adapter.columns if column not in first]:
        yield f"example 0 lacks {', '.join(missing)}, which `columns` says that every row has."
    docstring = sys.modules[adapter.convert.__module__].__doc__ or ""
    if not re.search(r"^\s*(A raw row|Raw rows)\b", docstring, re.MULTILINE):
        yield "the module's docstring has no line 'A raw row:' with a row below it."
    elif unseen := [column for column in adapter.columns if f'"{column}":' not in docstring]:
        yield f"the raw row in the module's docstring does not show {', '.join(unseen)}."
    if adapter.hub_id is not None and not re.fullmatch(r"[\w-]+/[\w.-]+", adapter.hub_id):
        yield f"hub_id is '{adapter.hub_id}', expected org/name, or None for a format."


def check_examples(adapter: Adapter) -> Iterator[str]:
    """What its examples give against what they say."""
    for number, (row, expected) in enumerate(adapter.examples):
        before = copy.deepcopy(row)
        try:
            found = convert_row(row, adapter, AdapterOptions())
        except Exception as error:  # an adapter is anyone's code, and can fail in any way
            yield f"example {number}: {error if isinstance(error, AdapterError) else repr(error)}"
            continue
        if list(map(comparable, found)) != list(map(comparable, expected)):
            yield f"example {number} gives\n    {shown(found)}\n  and says\n    {shown(expected)}"
        if row != before:
            yield f"example {number}: convert changed the row it was given."


def check_malformed_rows(adapter: Adapter, number: int) -> Iterator[str]:
    """Convert rows made worse at random: none may raise, be lost, or give what cannot be counted or written."""
    generator = random.Random(0)
    rows = [row for row, _ in adapter.examples]
    for _ in range(number):
        row = mutate(generator.choice(rows), generator)
        options = AdapterOptions(pairing=generator.choice(PAIRINGS), turns=generator.choice(TURNS))
        try:
            complaints = list(check_row(row, adapter, options))
        except Exception as error:
            raised = error.__cause__ or error
            complaints = [f"a row made it raise {type(raised).__name__}: {raised}\n    {row!r:.200}"]
        if complaints:  # the first tells enough
            yield complaints[0]
            return


def check_row(row: Row, adapter: Adapter, options: AdapterOptions) -> Iterator[str]:
    for candidate in convert_row(row, adapter, options):
        drop = candidate if isinstance(candidate, Drop) else check_pair(candidate, config_for(candidate))
        if drop is None:
            candidate.model_dump_json().encode()  # type: ignore[union-attr]
            continue
        json.dumps([drop.reason, drop.detail], ensure_ascii=False).encode()
        if not drop.reason.isidentifier():
            yield f"a row gives the reason {drop.reason!r}, expected a short name such as 'too_old'."


def config_for(preference: Preference) -> DataConfig:
    """Of the stage that trains on it."""
    return DataConfig(stage="sft" if preference.rejected is None else "dpo")


def comparable(candidate: Preference | Drop) -> Preference | str:
    """A preference as it is, and a drop by its reason."""
    return candidate.reason if isinstance(candidate, Drop) else candidate


def shown(candidates: Sequence[Preference | Drop]) -> str:
    words = [
        f"Drop({', '.join(repr(text) for text in (c.reason, c.detail) if text)})" if isinstance(c, Drop) else repr(c)
        for c in candidates
    ]
    return "\n    ".join(words) or "nothing"
