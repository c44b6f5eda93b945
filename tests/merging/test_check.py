"""How far a merged model's logits may be from those of base and adapter."""

import pytest

from dpo.errors import ConfigError
from dpo.merging.check import PROMPTS, Comparison
from tests.merging.conftest import llama

OF = {"num_prompts": 1, "largest_logit": 1}


@pytest.mark.parametrize(("rounding", "allowed"), [(0.0, 1e-4), (5e-4, 1e-4), (6e-3, 6e-4)])
def test_a_tenth_of_the_rounding_may_be_left(rounding: float, allowed: float) -> None:
    comparison = Comparison(**OF, difference=0, adapter_effect=0.1, rounding_effect=rounding)
    assert comparison.allowed == pytest.approx(allowed)


def test_an_adapter_that_rounding_swallows_is_worth_a_warning() -> None:
    assert "warning" in Comparison(**OF, difference=0, adapter_effect=0.1, rounding_effect=0.06).describe("bfloat16")
    assert "warning" not in Comparison(**OF, difference=0, adapter_effect=0.1, rounding_effect=0.04).describe(
        "bfloat16"
    )


@pytest.mark.parametrize(("difference", "agrees"), [(0.0, True), (1e-4, True), (1.1e-4, False), (float("nan"), False)])
def test_what_is_not_a_number_does_not_agree(difference: float, agrees: bool) -> None:
    comparison = Comparison(**OF, difference=difference, adapter_effect=0.5, rounding_effect=0)
    assert comparison.agrees() is agrees


def test_the_check_says_how_far_the_adapter_moves_the_logits(make_base, make_adapter, run_merge) -> None:
    account, _ = run_merge(make_adapter(make_base()), check_prompts=len(PROMPTS))
    assert account.comparison.num_prompts == len(PROMPTS)
    assert account.comparison.difference < 1e-5
    assert account.comparison.adapter_effect > 1e-2


def test_the_check_can_be_left_out(make_base, make_adapter, run_merge) -> None:
    account, _ = run_merge(make_adapter(make_base()), check_prompts=0)
    assert account.comparison is None
    assert "not checked" in account.describe()


def test_more_prompts_than_there_are_is_a_user_error(make_base, make_adapter, run_merge) -> None:
    with pytest.raises(ConfigError, match="--check_prompts 99: expected 0 to 8"):
        run_merge(make_adapter(make_base()), check_prompts=99)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_float32_agrees_to_1e_4_where_the_head_was_tied(make_base, make_adapter, run_merge) -> None:
    base = make_base(llama(tie_word_embeddings=True))
    account, _ = run_merge(make_adapter(base, target_modules=["lm_head", "embed_tokens"]), check_prompts=4)
    assert account.comparison.difference < account.comparison.allowed == 1e-4
