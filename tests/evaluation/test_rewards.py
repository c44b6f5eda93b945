"""Log-probabilities of pairs and the measures on them, compared with values computed by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from dpo.evaluation import rewards
from dpo.evaluation.rewards import pair_logps, pair_measures

TOLERANCE = 1e-4
"""Relative, for float32 sums in another order."""


def pair(prompt: list[int], chosen: list[int], rejected: list[int], row: int = 0) -> dict[str, Any]:
    texts = {"chosen": str(chosen), "rejected": str(rejected), "source": "s", "row": row}
    return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected} | texts


PAIRS = Dataset.from_list(
    [
        pair([5, 6, 7, 8], [9, 10], [11, 12, 13], row=0),
        pair([5], [14, 15, 16], [17], row=1),
        pair([18, 19], [20, 21], [22, 23], row=2),
        pair([30, 31, 32], [33], [34, 35, 36, 37, 38], row=3),
    ]
)


def by_hand(model: PreTrainedModel) -> torch.Tensor:
    def logp(prompt: list[int], answer: list[int]) -> float:
        with torch.no_grad():
            logps = model(torch.tensor([prompt + answer])).logits[0].log_softmax(dim=1)
        return sum(logps[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer))

    return torch.tensor(
        [[logp(p["prompt_ids"], p["chosen_ids"]), logp(p["prompt_ids"], p["rejected_ids"])] for p in PAIRS],
        dtype=torch.float64,
    )


@pytest.fixture
def model(tiny_llamas: tuple[Path, Path]) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_llamas[0], dtype=torch.float32)


@pytest.mark.parametrize("pairs_at_once", [1, 3, 8])
def test_log_probabilities_are_those_of_the_model_s_own_forward_pass(model, pairs_at_once: int) -> None:
    expected = by_hand(model)
    found = pair_logps(model, PAIRS, pairs_at_once=pairs_at_once)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=0)


def test_pairs_are_packed_if_the_architecture_allows_it(model, monkeypatch) -> None:
    monkeypatch.setattr(rewards, "plain_token_logps", lambda *_: pytest.fail("computed pair by pair"))
    pair_logps(model, PAIRS, pairs_at_once=4)


def test_pairs_are_computed_one_by_one_if_packed_gives_other_numbers(model, monkeypatch) -> None:
    expected = by_hand(model)
    packed = rewards.PackedForward.logps
    monkeypatch.setattr(rewards.PackedForward, "logps", lambda *args: packed(*args) + 1)
    torch.testing.assert_close(pair_logps(model, PAIRS, pairs_at_once=4), expected, rtol=TOLERANCE, atol=0)


def test_pairs_are_computed_one_by_one_if_packed_does_not_support_the_architecture() -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model("gptj", vocab_size=60, n_embd=16, n_layer=1, n_head=2, n_positions=32, rotary_dim=4)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    assert rewards.why_padded_by_architecture(model) is not None
    torch.testing.assert_close(pair_logps(model, PAIRS, pairs_at_once=4), by_hand(model), rtol=TOLERANCE, atol=0)


def test_an_adapter_changes_the_log_probabilities(model) -> None:
    without = by_hand(model)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    with_adapter = by_hand(adapted.eval())
    assert (with_adapter - without).abs().min() > 0.01
    torch.testing.assert_close(pair_logps(adapted, PAIRS, pairs_at_once=4), with_adapter, rtol=TOLERANCE, atol=0)


LOGPS = torch.tensor([[-3.0, -5.0], [-6.0, -1.0], [-4.0, -4.0], [-2.0, -8.0]], dtype=torch.float64)
REF_LOGPS = torch.tensor([[-4.0, -5.0], [-7.0, -3.0], [-5.0, -5.0], [-1.0, -9.0]], dtype=torch.float64)


def test_rewards_are_log_ratios_times_beta_and_equal_ones_are_wrong() -> None:
    # log-ratios: 1 against 0, 1 against 2, 1 against 1, -1 against 1; chosen shorter, longer, as long, shorter
    measures = pair_measures(PAIRS, LOGPS, REF_LOGPS, beta=0.5)
    values = {name.removeprefix("pairs, "): (found.value, found.num_items) for name, found in measures.items()}
    assert values == {
        "reward accuracy": (0.25, 4),
        "reward accuracy, chosen longer": (0.0, 1),
        "reward accuracy, chosen shorter": (0.5, 2),
        "reward accuracy, as long": (0.0, 1),
        "reward margin": (-0.25, 4),  # mean of 0.5, -0.5, 0, -1
        "equal rewards, counted as wrong": (0.25, 4),
    }
    assert measures["pairs, reward accuracy"].stderr == pytest.approx((0.25 * 0.75 / 3) ** 0.5)
    # squares of the differences from the mean: 0.5625, 0.0625, 0.0625, 0.5625
    assert measures["pairs, reward margin"].stderr == pytest.approx((1.25 / 3 / 4) ** 0.5)


def test_without_a_reference_summed_and_per_token_log_probabilities_are_reported_separately() -> None:
    measures = pair_measures(PAIRS, LOGPS, beta=0.5)
    values = {name: found.value for name, found in measures.items()}
    # summed: -3 > -5, -6 < -1, equal, -2 > -8
    # per token: -3/2 > -5/3, -2 < -1, equal, -2 < -8/5
    assert values == {
        "pairs, accuracy by summed log p, no reference": 0.5,
        "pairs, accuracy by summed log p, no reference, chosen longer": 0.0,
        "pairs, accuracy by summed log p, no reference, chosen shorter": 1.0,
        "pairs, accuracy by summed log p, no reference, as long": 0.0,
        "pairs, accuracy by log p per token, no reference": 0.25,
        "pairs, accuracy by log p per token, no reference, chosen longer": 0.0,
        "pairs, accuracy by log p per token, no reference, chosen shorter": 0.5,
        "pairs, accuracy by log p per token, no reference, as long": 0.0,
    }


def test_equal_pairs_are_counted_separately() -> None:
    twice = PAIRS.select([0, 0])
    found = pair_measures(twice, LOGPS[:2], REF_LOGPS[:2], beta=1.0)
    assert found["pairs, reward accuracy"].num_items == 2
    assert found["pairs, reward accuracy"].value == 0.5
