"""Tests of dpo.hub: Hub ids, and an unreachable Hub."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import datasets.config
import huggingface_hub
import pytest
from huggingface_hub import constants

from dpo.hub import is_hub_id, reach_hub


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("org/model", True),
        ("gpt2", True),
        ("/org/model", False),
        ("./model", False),
        ("~/model", False),
        ("a/b/c", False),
    ],
)
def test_a_name_with_at_most_one_slash_can_be_a_hub_id(name: str, expected: bool) -> None:
    assert is_hub_id(name) is expected


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    """Function that makes the network answer with a status or raise an error."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    reach_hub.cache_clear()

    def answer(given: Any) -> None:
        def head(address: str, timeout: float) -> SimpleNamespace:
            if isinstance(given, Exception):
                raise given
            return SimpleNamespace(status_code=given)

        monkeypatch.setattr(huggingface_hub, "get_session", lambda: SimpleNamespace(head=head))

    yield answer
    reach_hub.cache_clear()


def test_a_hub_that_answers_is_reachable(answer: Callable[[Any], None]) -> None:
    answer(200)
    assert reach_hub()
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("given", [OSError("no route"), 403])
def test_without_an_answer_the_libraries_are_switched_to_their_caches(
    answer: Callable[[Any], None], given: Any
) -> None:
    answer(given)
    assert not reach_hub()
    assert constants.HF_HUB_OFFLINE is True
    assert datasets.config.HF_HUB_OFFLINE is True
