"""Rows through an adapter as the pipeline sends them, and rows made worse at random."""

import copy
import json
import random
from typing import Any

from dpo.adapters import get_adapter
from dpo.data.filters import check_pair
from dpo.data.pipeline import convert_row
from dpo.data.source import parse_source
from dpo.records import Drop, Preference
from tests.builders import data_config

NUM_MALFORMED_ROWS = 2000

JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 3.5, float("nan"), float("inf"), 10**400),
    *("", " ", "text", "7", "\ud800", "x\udfffy", "\0", "<|im_end|>", "\n\nHuman:", "\n\nAssistant: ", "system"),
    *([], {}, [[]], [None], [[[[["deep"]]]]], [1, "a", None], b"bytes", ("a", "tuple"), {1: 2}, {"": None}),
    *({"role": "user"}, {"content": "x"}, {"role": "tool", "content": "x"}, {"role": "assistant", "content": None}),
    *({"role": "user", "content": "\ud800"}, {"role": "\udfff", "content": "x"}, {"answer": "x", "rank": "first"}),
    [{"role": "system", "content": "x"}],
    [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
    [{"answer": "x", "rank": 1}, {"answer": "y", "rank": None}],
)


def convert(name: str, row: Any, **options: Any) -> list[Preference | Drop]:
    return convert_row(row, parse_source(name), data_config(**options))


def reasons(name: str, row: Any, **options: Any) -> list[str | Preference]:
    """What comes back for a row: preferences as they are, drops by their reason."""
    return [
        candidate.reason if isinstance(candidate, Drop) else candidate for candidate in convert(name, row, **options)
    ]


def detail(name: str, row: Any) -> str:
    """The detail of the one drop that comes back for a row."""
    (drop,) = convert(name, row)
    assert isinstance(drop, Drop)
    return drop.detail


def check_that_malformed_rows_are_counted(name: str) -> None:
    """No row raises, each gives at least one candidate, and what it gives can be written to a report."""
    rng = random.Random(0)
    rows = [row for row, _ in get_adapter(name).examples]
    num_drops = 0
    for number in range(NUM_MALFORMED_ROWS):
        row = mutate(rng.choice(rows), rng)
        pairing = rng.choice(["best_worst", "best_random", "adjacent", "all"])
        candidates = convert(name, row, pairing=pairing)
        assert candidates, f"row {number} is lost: {row!r}"
        for candidate in candidates:
            assert isinstance(candidate, Drop | Preference), f"row {number}: {candidate!r}"
            drop = candidate if isinstance(candidate, Drop) else check_pair(candidate, data_config())
            if drop is None:
                assert isinstance(candidate, Preference)
                candidate.model_dump_json().encode()
            else:
                num_drops += 1
                assert drop.reason.isidentifier(), f"row {number}: {drop.reason!r}"
                json.dumps([drop.reason, drop.detail], ensure_ascii=False).encode()
    assert num_drops > NUM_MALFORMED_ROWS / 4, "the rows are hardly malformed"


def mutate(row: Any, rng: random.Random) -> Any:
    """A copy with one to three of its values replaced, removed, repeated or wrapped, at any depth."""
    changed = copy.deepcopy(row)
    for _ in range(rng.randint(1, 3)):
        places = list(containers(changed))
        if not places:
            return rng.choice(JUNK)
        container = rng.choice(places)
        key = rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
        action = rng.choice(["replace", "replace", "remove", "repeat", "wrap"])
        if action == "replace":
            container[key] = copy.deepcopy(rng.choice(JUNK))
        elif action == "remove":
            del container[key]
        elif action == "wrap":
            container[key] = rng.choice([[container[key]], {"content": container[key]}])
        elif isinstance(container, list):
            container.insert(rng.randrange(len(container) + 1), copy.deepcopy(container[key]))
        else:
            container[rng.choice(list(container))] = copy.deepcopy(container[key])
    return changed


def containers(value: Any) -> Any:
    """Every list and dict that is not empty, the outermost first."""
    if isinstance(value, dict | list) and value:
        yield value
        for inner in list(value.values()) if isinstance(value, dict) else value:
            yield from containers(inner)
