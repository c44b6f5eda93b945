"""Random malformed rows, to test that adapters handle them."""

__all__ = ["mutate"]

import copy
import random
from collections.abc import Iterator
from typing import Any

JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 3.5, float("nan"), float("inf"), 10**400),
    *("", " ", "text", "7", "\ud800", "x\udfffy", "\0", "<|im_end|>", "\n\nHuman:", "\n\nAssistant: ", "system"),
    *([], {}, [[]], [None], [[[[["deep"]]]]], [1, "a", None], b"bytes", ("a", "tuple"), {1: 2}, {"": None}),
    *({"role": "user"}, {"content": "x"}, {"role": "tool", "content": "x"}, {"role": "assistant", "content": None}),
    *({"role": "user", "content": "\ud800"}, {"role": "\udfff", "content": "x"}, {"answer": "x", "rank": "first"}),
    *({"from": "human"}, {"from": "gpt", "value": None}, {"from": "observation", "value": "x"}, "<p>open <b>tags"),
    [{"role": "system", "content": "x"}],
    [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
    [{"answer": "x", "rank": 1}, {"answer": "y", "rank": None}],
    *("long " * 2000, "<blockquote>" * 1500 + "deep"),
)


def mutate(row: Any, generator: random.Random) -> Any:
    """Copy a row with one to three values replaced, removed, repeated, wrapped or deeply nested, at any depth.

    Args:
        row: A raw row.
        generator: Random generator. The same state gives the same copy.
    """
    changed = copy.deepcopy(row)
    for _ in range(generator.randint(1, 3)):
        places = list(containers(changed))
        if not places:
            return generator.choice(JUNK)
        container = generator.choice(places)
        key = generator.choice(list(container) if isinstance(container, dict) else range(len(container)))
        action = generator.choice(["replace", "replace", "remove", "repeat", "wrap", "nest"])
        if action == "replace":
            container[key] = copy.deepcopy(generator.choice(JUNK))
        elif action == "remove":
            del container[key]
        elif action == "wrap":
            container[key] = generator.choice([[container[key]], {"content": container[key]}])
        elif action == "nest":
            for _ in range(generator.choice([2, 50])):
                container[key] = [container[key]]
        elif isinstance(container, list):
            container.insert(generator.randrange(len(container) + 1), copy.deepcopy(container[key]))
        else:
            container[generator.choice(list(container))] = copy.deepcopy(container[key])
    return changed


def containers(value: Any) -> Iterator[Any]:
    """Yield every list and dict that is not empty, outermost first."""
    if isinstance(value, dict | list) and value:
        yield value
        for inner in list(value.values()) if isinstance(value, dict) else value:
            yield from containers(inner)
