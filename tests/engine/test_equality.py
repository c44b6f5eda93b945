"""The packed engine gives the same numbers as the padded engine and as plain trl.DPOTrainer, in float32."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from trl import DPOConfig, DPOTrainer

from dpo.models.embedded import embedded_model
from dpo.objective.losses import LOSSES
from dpo.training.settings.resolving import TrainingConfig
from dpo.training.trainers.packed import PackedTrainer
from dpo.training.trainers.padded import PreferenceTrainer

LOGPS_TOLERANCE = 1e-4
"""Relative. float32 sums in another order differ by about 1e-6. Soft-capping and deep models increase that."""
GRADIENT_TOLERANCE = 1e-3
"""Norm of the difference over the norm of the gradient, for each parameter."""

SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
ARCHITECTURES = {
    "llama": {"tie_word_embeddings": False},
    "llama tied": {"tie_word_embeddings": True},
    "mistral": {"sliding_window": 6},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {"sliding_window": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "gemma3_text": {"sliding_window": 5},
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 4.0, "attention_multiplier": 0.3, "residual_multiplier": 0.5},
    "gpt_neox": {},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0},
    "phi3": {"pad_token_id": 0},
    "olmo2": {},
    "smollm3": {"pad_token_id": 0},
    "gpt_oss": {"num_local_experts": 4, "sliding_window": 5, "router_aux_loss_coef": 0.0},
}


def build(architecture: str, seed: int = 0) -> PreTrainedModel:
    """Build a random model of 3 layers and width 32, with weights large enough that attention is not uniform."""
    options = ARCHITECTURES[architecture]
    sizes = {"vocab_size": SIZES["vocab_size"]} if architecture == "gpt2" else SIZES
    config = AutoConfig.for_model(architecture.split()[0], **sizes | options)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
    return model


def random_pairs(num_pairs: int = 5, seed: int = 1, vocabulary: int = SIZES["vocab_size"]) -> Dataset:
    """Build pairs of random tokens. Some are as short as a pair can be."""
    generator = torch.Generator().manual_seed(seed)

    def ids(longest: int) -> list[int]:
        length = int(torch.randint(1, longest + 1, (1,), generator=generator))
        return torch.randint(10, vocabulary, (length,), generator=generator).tolist()

    rows = [{"prompt_ids": ids(20), "chosen_ids": ids(12), "rejected_ids": ids(15)} for _ in range(num_pairs - 2)]
    rows.append({"prompt_ids": [11], "chosen_ids": [12], "rejected_ids": [13, 14]})
    rows.append({"prompt_ids": [11, 12, 13], "chosen_ids": [15, 16], "rejected_ids": [15, 16]})
    return Dataset.from_list(rows)


@pytest.fixture
def trainers(tiny_model: Path, tmp_path: Path):
    """A function that builds one trainer of each kind on the same weights: packed, padded, and TRL's own."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    def make(load: Callable[[int], PreTrainedModel], pairs: Dataset, noise: float, **flags: Any):
        config = {
            "model_name_or_path": str(tiny_model),
            "output_dir": str(tmp_path / "out"),
            "per_device_train_batch_size": len(pairs),
            "global_batch_size": len(pairs),
            "gradient_checkpointing": False,
        } | flags

        def models() -> dict[str, PreTrainedModel]:
            policy, reference = load(0), load(0)
            torch.manual_seed(2)
            with torch.no_grad():  # stay near the reference model, so that no sigmoid saturates
                for parameter in policy.parameters():
                    parameter += noise * torch.randn_like(parameter)
            return {"model": policy, "ref_model": reference}

        options = {"train_dataset": pairs, "processing_class": tokenizer}
        packed = PackedTrainer(
            args=TrainingConfig(**config, reference_cache="none"), backend="pairwise", **models(), **options
        )
        padded = PreferenceTrainer(args=TrainingConfig(**config, engine="padded"), **models(), **options)
        plain_args = DPOConfig(
            output_dir=str(tmp_path / "trl"),
            per_device_train_batch_size=len(pairs),
            max_length=None,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to="none",
            **flags,
        )

        class Plain(DPOTrainer):
            def _prepare_dataset(self, dataset, *args, **kwargs):
                return dataset

        plain = Plain(args=plain_args, **models(), **options)
        return packed, padded, plain

    return make


def gradients(trainer, batch) -> dict[str, torch.Tensor]:
    trainer.model.train()
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, batch).backward()
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_logps_and_gradients_are_those_of_the_padded_engine_and_of_trl(architecture, trainers):
    pairs = random_pairs()
    assert_equal(*trainers(lambda seed: build(architecture, seed), pairs, noise=0.02), pairs)


OF_TRL = {
    "sigmoid": {},
    "hinge": {},
    "ipo": {},
    "exo_pair": {"label_smoothing": 1e-3},
    "nca_pair": {},
    "robust": {"label_smoothing": 0.1},
    "bco_pair": {},
    "sppo_hard": {},
    "apo_zero": {},
    "apo_down": {},
    "discopop": {"discopop_tau": 0.2},
    "sigmoid_norm": {},
    "aot": {"label_smoothing": 0.1},
    "aot_unpaired": {},
}


@pytest.mark.parametrize(
    "flags",
    [
        *({"loss_type": [name]} | options for name, options in OF_TRL.items()),
        {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
        {"ld_alpha": 0.3},
        {"use_weighting": True},
        {"ld_alpha": 0.0, "use_weighting": True, "loss_type": ["ipo", "bco_pair"]},
        {"f_divergence_type": "forward_kl"},
        {"f_divergence_type": "js_divergence", "loss_type": ["ipo"]},
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3},
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 1.0},
    ],
    ids=str,
)
def test_they_are_equal_with_every_loss_that_trl_has(flags: dict[str, Any], trainers) -> None:
    # All chosen answers have one length, because TRL's sft is a mean over tokens and ours is a mean over pairs.
    pairs = random_pairs().map(lambda pair: {"chosen_ids": (pair["chosen_ids"] * 4)[:4]})
    assert_equal(*trainers(lambda seed: build("llama", seed), pairs, noise=0.02, **flags), pairs)


def test_every_loss_that_trl_has_is_compared() -> None:
    # sft is compared only together with others: alone it needs no reference model, but TRL's rewards use one.
    assert {*OF_TRL, "sft"} == {name for name, loss in LOSSES.items() if loss.in_trl}


def test_they_are_equal_for_the_embedded_model(trainers, session_cache, monkeypatch):
    monkeypatch.setenv("DPO_CACHE", str(session_cache))
    folder = embedded_model()
    # Leave out the pair of identical answers, whose margin is only rounding.
    pairs = random_pairs(4, vocabulary=49_152).select(range(3))
    load = partial(AutoModelForCausalLM.from_pretrained, folder, dtype=torch.float32)
    assert_equal(*trainers(lambda seed: load(), pairs, noise=1e-4), pairs)


def assert_equal(packed: PackedTrainer, padded: PreferenceTrainer, plain: DPOTrainer, pairs: Dataset) -> None:
    pack = next(iter(packed.get_train_dataloader()))
    rows = list(pack["pack"].rows)
    assert sorted(rows) == list(range(len(pairs)))
    found = packed.compute_loss(packed.model, pack)
    seen = packed.metrics.seen[-1].to_float64()
    for oracle in (padded, plain):
        batch = oracle.data_collator([pairs[row] for row in rows])
        oracle.model.train()
        loss = oracle.compute_loss(oracle.model, batch)
        assert found.item() == pytest.approx(loss.item(), rel=LOGPS_TOLERANCE)
        measures = packed.objective.measure(seen).mean(dim=0).tolist()[1:]
        for name, value in zip(oracle_names(), measures, strict=True):
            expected = oracle._metrics["train"][name][-1]
            assert value == pytest.approx(expected, rel=LOGPS_TOLERANCE, abs=1e-5), name
        expected_gradients = gradients(oracle, batch)
        found_gradients = gradients(packed, pack)
        assert found_gradients.keys() == expected_gradients.keys()
        largest = max(gradient.norm() for gradient in expected_gradients.values())
        for name, expected in expected_gradients.items():
            difference = (found_gradients[name] - expected).norm()
            # A gradient that is only rounding (a key's bias changes no softmax) is compared with the largest one.
            assert difference <= GRADIENT_TOLERANCE * expected.norm() + 1e-6 * largest, name


def oracle_names():
    return (
        *("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"),
        *("logps/chosen", "logps/rejected"),
    )
