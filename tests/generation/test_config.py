"""Which flags of generation can be combined."""

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
def test_flags_that_are_all_read_are_accepted(flags: dict[str, Any]) -> None:
    assert config(**flags).pair == flags.get("pair", "given")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"pair": "best_worst", "num_candidates": 4}, r"needs a reward model to rank .*\n  Pass --reward_model"),
        (
            {"pair": "best_worst", "num_candidates": 4, "reward_model": "r", "pick": "random"},
            "--pick random applies only to --pair given",
        ),
        ({"pair": "best_worst", "reward_model": "r"}, "needs at least two answers"),
        ({"include_given": True}, "--include_given applies only to --pair best_worst"),
        ({"pick": "longest"}, "--num_candidates is 1"),
        ({"pick": "scorer", "num_candidates": 2}, r"needs a reward model to score .*\n  Pass --reward_model"),
        ({"reward_model": "r"}, "--reward_model r has nothing to score"),
        ({"reward_model": "r", "num_candidates": 2, "pick": "longest"}, "--reward_model r has nothing to score"),
        ({"num_candidates": 2, "temperature": 0}, "all candidates are the same"),
        ({"top_p": 0.5, "temperature": 0}, "--top_p 0.5 has no effect"),
        ({"top_p": 0}, "--top_p"),
        ({"max_new_tokens": 0}, "--max_new_tokens"),
        ({"batch_size": 0}, "--batch_size"),
    ],
)
def test_flags_without_effect_are_refused_by_name(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**flags)


def test_the_given_answer_is_read_if_it_can_become_part_of_a_pair() -> None:
    best_worst = {"pair": "best_worst", "num_candidates": 2, "reward_model": "r"}
    assert config().reads_given
    assert config(**best_worst, include_given=True).reads_given
    assert not config(**best_worst).reads_given
