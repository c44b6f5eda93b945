"""How far a merged model's logits may be from those of the base with the adapter."""

import pytest

from dpo.errors import ConfigError
from dpo.merging.check import PROMPTS, Comparison
from tests.merging.conftest import llama

COMMON = {"num_prompts": 1, "largest_logit": 1}


@pytest.mark.parametrize(("rounding", "allowed"), [(0.0, 1e-4), (5e-4, 1e-4), (6e-3, 6e-4)])
def test_a_tenth_of_the_rounding_effect_is_allowed(rounding: float, allowed: float) -> None:
    comparison = Comparison(**COMMON, difference=0, adapter_effect=0.1, rounding_effect=rounding)
    assert comparison.allowed == pytest.approx(allowed)


@pytest.mark.parametrize(("rounding", "warns"), [(0.06, True), (0.04, False)])
def test_rounding_that_hides_the_adapter_gives_a_warning(rounding: float, warns: bool) -> None:
    comparison = Comparison(**COMMON, difference=0, adapter_effect=0.1, rounding_effect=rounding)
    assert ("warning" in comparison.describe("bfloat16")) is warns


@pytest.mark.parametrize(("difference", "agrees"), [(0.0, True), (1e-4, True), (1.1e-4, False), (float("nan"), False)])
def test_a_difference_above_the_tolerance_or_nan_does_not_agree(difference: float, agrees: bool) -> None:
    comparison = Comparison(**COMMON, difference=difference, adapter_effect=0.5, rounding_effect=0)
    assert comparison.agrees() is agrees


def test_the_check_reports_how_far_the_adapter_moves_the_logits(make_base, make_adapter, run_merge) -> None:
    report, _ = run_merge(make_adapter(make_base()), check_prompts=len(PROMPTS))
    assert report.comparison.num_prompts == len(PROMPTS)
    assert report.comparison.difference < 1e-5
    assert report.comparison.adapter_effect > 1e-2


def test_the_check_can_be_skipped(make_base, make_adapter, run_merge) -> None:
    report, _ = run_merge(make_adapter(make_base()), check_prompts=0)
    assert report.comparison is None
    assert "not checked" in report.describe()


def test_more_prompts_than_there_are_is_a_user_error(make_base, make_adapter, run_merge) -> None:
    with pytest.raises(ConfigError, match="--check_prompts 99: expected 0 to 8"):
        run_merge(make_adapter(make_base()), check_prompts=99)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_float32_agrees_to_1e_4_where_the_head_was_tied(make_base, make_adapter, run_merge) -> None:
    base = make_base(llama(tie_word_embeddings=True))
    report, _ = run_merge(make_adapter(base, target_modules=["lm_head", "embed_tokens"]), check_prompts=4)
    assert report.comparison.difference < report.comparison.allowed == 1e-4
