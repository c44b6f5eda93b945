"""Which flags of generation go together."""

from typing import Any

import pytest

from dpo.errors import ConfigError
from dpo.generation.config import GenerationConfig


def config(**flags: Any) -> GenerationConfig:
    return GenerationConfig.from_flags({"model": "m"} | flags)


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"num_candidates": 4, "pick": "longest"},
        {"num_candidates": 4, "pick": "scorer", "reward_model": "r"},
        {"pair": "best_worst", "num_candidates": 2, "reward_model": "r"},
        {"pair": "best_worst", "num_candidates": 1, "reward_model": "r", "include_given": True},
        {"temperature": 0},
    ],
)
def test_flags_that_are_all_read_are_taken(flags: dict[str, Any]) -> None:
    assert config(**flags).pair == flags.get("pair", "given")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"pair": "best_worst", "num_candidates": 4}, "Pass --reward_model"),
        (
            {"pair": "best_worst", "num_candidates": 4, "reward_model": "r", "pick": "random"},
            "--pick random is read by",
        ),
        ({"pair": "best_worst", "reward_model": "r"}, "needs two answers"),
        ({"include_given": True}, "--include_given is read by --pair best_worst alone"),
        ({"pick": "longest"}, "--num_candidates is 1"),
        ({"pick": "scorer", "num_candidates": 2}, "Pass --reward_model"),
        ({"reward_model": "r"}, "--reward_model r would score nothing"),
        ({"reward_model": "r", "num_candidates": 2, "pick": "longest"}, "--reward_model r would score nothing"),
        ({"num_candidates": 2, "temperature": 0}, "all candidates are the same"),
        ({"top_p": 0.5, "temperature": 0}, "--top_p 0.5 is not read"),
        ({"top_p": 0}, "--top_p"),
        ({"max_new_tokens": 0}, "--max_new_tokens"),
        ({"batch_size": 0}, "--batch_size"),
    ],
)
def test_flags_that_nothing_would_read_are_refused_by_name(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**flags)


def test_the_given_answer_is_read_where_it_can_end_up_in_a_pair() -> None:
    best_worst = {"pair": "best_worst", "num_candidates": 2, "reward_model": "r"}
    assert config().reads_given
    assert config(**best_worst, include_given=True).reads_given
    assert not config(**best_worst).reads_given
