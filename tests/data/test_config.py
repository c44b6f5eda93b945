"""Tests of dpo.data.config: the data flags, and contradictions between them."""

from typing import Any

import pytest
from pydantic import ValidationError

from dpo.data.config import DataConfig
from dpo.errors import ConfigError


def from_flags(**values: Any) -> DataConfig:
    return DataConfig.from_flags({"datasets": ["nectar"]} | values)


def test_lists_become_tuples_and_other_flags_have_defaults() -> None:
    config = from_flags(datasets=["nectar", "triplets=rows.jsonl@0.5"])
    assert config.datasets == ("nectar", "triplets=rows.jsonl@0.5")
    assert (config.template, config.pairing, config.special_tokens_in_text) == ("chatml", "best_worst", "drop")
    assert (config.max_length, config.max_prompt_length, config.max_target_length) == (2048, None, None)
    assert (config.keep_ties, config.add_control_tokens, config.validation_split) == (False, False, 0.0)


def test_it_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        from_flags().seed = 1


def test_adapters_receive_the_pairing_and_the_seed() -> None:
    options = from_flags(pairing="all", seed=7).adapter_options()
    assert (options.pairing, options.seed) == ("all", 7)


@pytest.mark.parametrize("datasets", [[], ()])
def test_no_training_source_is_an_error(datasets: Any) -> None:
    with pytest.raises(ConfigError, match="no training data: expected --datasets ADAPTER"):
        from_flags(datasets=datasets)


def test_two_ways_to_hold_out_are_an_error() -> None:
    with pytest.raises(ConfigError, match="--eval_datasets and --validation_split both hold pairs out"):
        from_flags(eval_datasets=["triplets"], validation_split=0.1)
    assert from_flags(eval_datasets=["triplets"]).eval_datasets == ("triplets",)
    assert from_flags(validation_split=0.1).validation_split == 0.1


@pytest.mark.parametrize(
    "values",
    [
        {"datasets": ["nectar", "nectar"]},
        {"datasets": ["nectar"], "eval_datasets": ["nectar"]},
        {"datasets": ["triplets"], "eval_datasets": ["nectar", "nectar"]},
    ],
)
def test_a_source_that_is_named_twice_is_an_error(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="a source is named twice: nectar"):
        from_flags(**values)


@pytest.mark.parametrize("name", ["max_prompt_length", "max_target_length"])
def test_the_limit_of_a_part_may_equal_max_length_but_not_exceed_it(name: str) -> None:
    assert getattr(from_flags(max_length=100, **{name: 100}), name) == 100
    with pytest.raises(ConfigError, match=f"--{name} 101 is above --max_length 100"):
        from_flags(max_length=100, **{name: 101})


@pytest.mark.parametrize(
    "values",
    [
        {"pairing": "all"},
        {"pairing": "best_random"},
        {"column_rejected": "bad"},
        {"column_score_chosen": "votes"},
        {"column_score_rejected": "votes"},
        {"keep_ties": True},
        {"keep_identical": True},
        {"min_score_margin": 0.0},
        {"drop_conflicts": True},
        {"balance_length": True},
    ],
    ids=lambda values: next(iter(values)),
)
def test_flags_about_two_answers_are_refused_in_stage_sft(values: dict[str, Any]) -> None:
    (name,) = values
    assert from_flags(**values).stage == "dpo"
    with pytest.raises(ConfigError, match=f"--{name} is about the two answers of a pair, .*\n  Leave it out"):
        from_flags(stage="sft", **values)


def test_stage_sft_accepts_every_other_flag() -> None:
    config = from_flags(
        stage="sft",
        drop_duplicates="near",
        drop_refusals=True,
        decontaminate=["benchmark.txt"],
        max_pairs_per_prompt=1,
        max_pairs_per_source=9,
        min_score_ratio=3.0,
        validation_split=0.1,
        weights=[1],
        turns="all",
    )
    assert (config.stage, config.adapter_options().turns) == ("sft", "all")


def test_turns_all_is_refused_in_stage_dpo() -> None:
    with pytest.raises(ConfigError, match=r"--turns all makes answers .* trains on pairs\.\n .*--stage sft"):
        from_flags(turns="all")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_length": 0}, "--max_length: Input should be greater than 0, found 0"),
        ({"max_length": "long"}, "--max_length: .*found 'long'"),
        ({"max_prompt_length": -1}, "--max_prompt_length: .*found -1"),
        ({"max_target_length": 0}, "--max_target_length: .*found 0"),
        ({"validation_split": 1.0}, "--validation_split: Input should be less than 1, found 1.0"),
        ({"validation_split": -0.1}, "--validation_split: .*found -0.1"),
        ({"validation_split": float("nan")}, "--validation_split: .*found nan"),
        ({"pairing": "worst"}, "--pairing: .*found 'worst'"),
        ({"special_tokens_in_text": "ignore"}, "--special_tokens_in_text: .*found 'ignore'"),
        ({"datasets": ["nectar", 3]}, r"--datasets\.1: .*found 3"),
        ({"datasts": ["nectar"]}, "--datasts: Extra inputs are not permitted"),
        ({"seed": 1.5}, "--seed: .*found 1.5"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_flag_and_value(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_flags(**values)


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1])
def test_a_seed_beyond_64_bits_is_an_error(seed: int) -> None:
    with pytest.raises(ConfigError, match="--seed"):
        from_flags(seed=seed)
