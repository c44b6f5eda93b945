"""How far a merged model's logits may be from those of base and adapter."""

import pytest
import torch

from dpo.errors import ConfigError
from dpo.merging.check import PROMPTS, Comparison, allowed_difference
from dpo.merging.shards import Written
from tests.merging.conftest import llama


def written(dtype: torch.dtype, num_rounded: int) -> Written:
    return Written(num_shards=1, dtypes=(dtype,), num_rounded=num_rounded)


def test_what_is_allowed_grows_with_the_rounding() -> None:
    assert allowed_difference(written(torch.float32, 210)) == 1e-4
    assert allowed_difference(written(torch.float16, 100)) == pytest.approx(4 * 2**-11 * 10)
    assert allowed_difference(written(torch.bfloat16, 100)) == pytest.approx(4 * 2**-8 * 10)
    assert allowed_difference(written(torch.bfloat16, 0)) == 1e-4


def test_an_adapter_that_rounding_swallows_is_worth_a_warning() -> None:
    of = {"num_prompts": 1, "largest_logit": 1, "adapter_effect": 0.1, "allowed": 0.2}
    assert "warning" in Comparison(**of, difference=0.06).describe("bfloat16")
    assert "warning" not in Comparison(**of, difference=0.04).describe("bfloat16")


@pytest.mark.parametrize(("difference", "agrees"), [(0.0, True), (0.1, True), (0.11, False), (float("nan"), False)])
def test_what_is_not_a_number_does_not_agree(difference: float, agrees: bool) -> None:
    comparison = Comparison(num_prompts=1, largest_logit=1, difference=difference, adapter_effect=0.5, allowed=0.1)
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
