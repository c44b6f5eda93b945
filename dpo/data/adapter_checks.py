"""Checks of the adapter contract: the examples are correct, and no malformed row makes the adapter fail."""

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
    """Check an adapter and return a list of problems, one sentence each. The list is empty if there are none.

    Args:
        adapter: The adapter to check.
        num_malformed_rows: Number of malformed rows to convert.
    """
    if wrong_types := list(check_types(adapter)):
        return wrong_types
    complaints = [*check_description(adapter), *check_examples(adapter)]
    if complaints:
        return complaints
    return list(check_malformed_rows(adapter, num_malformed_rows))


def check_types(adapter: Adapter) -> Iterator[str]:
    """Check the types that the other checks rely on."""
    if not isinstance(adapter.columns, tuple) or not all(isinstance(column, str) for column in adapter.columns):
        yield f"columns is {adapter.columns!r}, expected a tuple of texts."
    for number, example in enumerate(adapter.examples):
        is_pair = isinstance(example, tuple) and len(example) == 2 and isinstance(example[1], Sequence)
        if not is_pair or not all(isinstance(candidate, Preference | Drop) for candidate in example[1]):
            yield f"example {number}: expected (row, [Preference or Drop, ...])."


def check_description(adapter: Adapter) -> Iterator[str]:
    """Check the columns and the docstring against the first example."""
    if not adapter.examples:
        yield "EXAMPLES is empty: expected at least one raw row with its preferences."
        return
    first, given = adapter.examples[0]
    if not any(isinstance(candidate, Preference) for candidate in given):
        yield "example 0 contains no Preference: it needs one, because it is shown to users."
    if missing := [column for column in adapter.columns if column not in first]:
        yield f"example 0 lacks {', '.join(missing)}, but every row must have all `columns`."
    docstring = sys.modules[adapter.convert.__module__].__doc__ or ""
    if not re.search(r"^\s*(A raw row|Raw rows)\b", docstring, re.MULTILINE):
        yield "the module's docstring has no line 'A raw row:', followed by a row."
    elif unseen := [column for column in adapter.columns if f'"{column}":' not in docstring]:
        yield f"the raw row in the module's docstring does not show {', '.join(unseen)}."
    if adapter.hub_id is not None and not re.fullmatch(r"[\w-]+/[\w.-]+", adapter.hub_id):
        yield f"hub_id is '{adapter.hub_id}', expected org/name, or None for a format."


def check_examples(adapter: Adapter) -> Iterator[str]:
    """Check that convert returns what the examples state."""
    for number, (row, expected) in enumerate(adapter.examples):
        before = copy.deepcopy(row)
        try:
            found = convert_row(row, adapter, AdapterOptions())
        except Exception as error:  # an adapter may be the user's own code and can fail in any way
            yield f"example {number}: {error if isinstance(error, AdapterError) else repr(error)}"
            continue
        if list(map(comparable, found)) != list(map(comparable, expected)):
            yield (
                f"example {number}: convert returned\n    {shown(found)}\n"
                f"  but the example states\n    {shown(expected)}"
            )
        if row != before:
            yield f"example {number}: convert changed the row. It must not modify its input."


def check_malformed_rows(adapter: Adapter, number: int) -> Iterator[str]:
    """Check with random malformed rows that convert raises no unexpected error and that results can be written."""
    generator = random.Random(0)
    rows = [row for row, _ in adapter.examples]
    for _ in range(number):
        row = mutate(generator.choice(rows), generator)
        options = AdapterOptions(pairing=generator.choice(PAIRINGS), turns=generator.choice(TURNS))
        try:
            complaints = list(check_row(row, adapter, options))
        except Exception as error:
            raised = error.__cause__ or error
            complaints = [f"convert raised {type(raised).__name__}: {raised}. The row was:\n    {row!r:.200}"]
        if complaints:  # one problem is enough
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
            yield f"a row was dropped with the reason {drop.reason!r}, expected an identifier such as 'too_old'."


def config_for(preference: Preference) -> DataConfig:
    """Return a configuration for the stage that a preference is for."""
    return DataConfig(stage="sft" if preference.rejected is None else "dpo")


def comparable(candidate: Preference | Drop) -> Preference | str:
    """Return a preference unchanged, and a drop as its reason, because details are not compared."""
    return candidate.reason if isinstance(candidate, Drop) else candidate


def shown(candidates: Sequence[Preference | Drop]) -> str:
    words = [
        f"Drop({', '.join(repr(text) for text in (c.reason, c.detail) if text)})" if isinstance(c, Drop) else repr(c)
        for c in candidates
    ]
    return "\n    ".join(words) or "nothing"
