"""The Hub: what a name can be, and what happens where nobody answers."""

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
def test_a_name_with_one_slash_at_most_can_be_the_hub_s(name: str, expected: bool) -> None:
    assert is_hub_id(name) is expected


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], None]]:
    """Lets the network answer with a status, or raise."""
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


def test_a_hub_that_answers_can_be_asked(answer: Callable[[Any], None]) -> None:
    answer(200)
    assert reach_hub()
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("given", [OSError("no route"), 403])
def test_where_nobody_answers_the_libraries_look_into_their_caches_alone(
    answer: Callable[[Any], None], given: Any
) -> None:
    answer(given)
    assert not reach_hub()
    assert constants.HF_HUB_OFFLINE is True
    assert datasets.config.HF_HUB_OFFLINE is True
