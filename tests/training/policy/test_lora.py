"""LoRA: what gets an adapter, what the reference is, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model_state_dict
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from dpo.engine.reference_cache import ReferenceCache
from dpo.errors import ConfigError
from dpo.models.locating import locate
from dpo.training.policy.lora import base_model, describe_adapter, lora_config
from dpo.training.policy.model import load_model
from dpo.training.settings.resolving import TrainingConfig
from dpo.training.trainers.packed import PackedTrainer
from dpo.training.trainers.padded import PreferenceTrainer
from dpo.training.trainers.reference import Reference
from tests.builders import located
from tests.training.trainers.test_packed import numbered


def config_for(model: Path, output_dir: Path, **flags: Any) -> TrainingConfig:
    defaults = {
        "global_batch_size": 4,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "logging_steps": 1,
        "max_steps": 3,
        "gradient_checkpointing": False,
        "save_strategy": "no",
    }
    return TrainingConfig(model_name_or_path=str(model), output_dir=str(output_dir), **defaults | flags)


def load(model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)


def adapted(model: Path, tmp_path: Path, **flags: Any) -> Any:
    """A model with the adapter that flags ask for."""
    plain = load(model)
    adapter = lora_config(config_for(model, tmp_path / "out", **flags), plain)
    assert adapter is not None
    return PeftModel(plain, adapter)


def layers_of(model: PeftModel) -> set[str]:
    return {name.split(".lora_A")[0].rpartition(".")[2] for name, _ in model.named_parameters() if ".lora_A" in name}


def test_every_linear_layer_but_the_head_gets_an_adapter(tiny_model, tmp_path):
    model = adapted(tiny_model, tmp_path, lora_rank=4)
    assert layers_of(model) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert model.peft_config["default"].lora_alpha == 8, "twice the rank"


def test_targets_are_those_that_are_named(tiny_model, tmp_path):
    model = adapted(tiny_model, tmp_path, lora_rank=4, lora_alpha=3.0, lora_target_modules=["q_proj", "down_proj"])
    assert layers_of(model) == {"q_proj", "down_proj"}
    assert model.peft_config["default"].lora_alpha == 3


def test_dora_and_rslora_are_pefts(tiny_model, tmp_path):
    flags = {"lora_rank": 4, "use_dora": True, "use_rslora": True}
    model = adapted(tiny_model, tmp_path, **flags)
    assert model.peft_config["default"].use_dora and model.peft_config["default"].use_rslora
    assert any("lora_magnitude_vector" in name for name, _ in model.named_parameters())
    config = lora_config(config_for(tiny_model, tmp_path / "out", **flags), load(tiny_model))
    assert config is not None
    assert describe_adapter(config) == "DoRA, rank 4, alpha 8 (alpha / sqrt(rank)), on all linear layers"


def test_targets_that_are_no_layer_list_the_candidates(tiny_model, tmp_path):
    with pytest.raises(ConfigError, match="has no such layer") as caught:
        adapted(tiny_model, tmp_path, lora_rank=4, lora_target_modules=["q_proj", "query"])
    assert "Candidates: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in str(caught.value)
    with pytest.raises(ConfigError, match="the head cannot have an adapter"):
        adapted(tiny_model, tmp_path, lora_rank=4, lora_target_modules=["lm_head"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"lora_alpha": 4.0}, "--lora_alpha belongs to a new LoRA adapter: pass --lora_rank"),
        ({"use_dora": True}, "--use_dora belongs to a new LoRA adapter"),
        ({"load_in_4bit": True}, "--load_in_4bit holds the model in 4 bits under an adapter"),
        ({"lora_rank": 0}, "expected at least 1"),
        ({"lora_rank": 4, "lora_dropout": 1.0}, "less than 1"),
        ({"lora_rank": 4, "lora_alpha": 0.0}, "above 0"),
        ({"lora_rank": 4, "lora_alpha": float("inf")}, "above 0"),
        ({"lora_rank": 4, "lora_all_linear": True, "lora_target_modules": ["q_proj"]}, "pass one of the two"),
        ({"lora_rank": 4, "lora_all_linear": False}, "leaves no layer"),
        (
            {"lora_rank": 4, "load_in_4bit": True, "deepspeed": '{"zero_optimization": {"stage": 3}}'},
            "--load_in_4bit with ZeRO-3",
        ),
        ({"device_map": "balanced", "deepspeed": "{}"}, "--device_map balanced spreads one process's model"),
    ],
)
def test_flags_that_contradict_themselves_are_refused(flags, message, tiny_model, tmp_path):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        config_for(tiny_model, tmp_path / "out", **flags)


def test_flags_of_a_new_adapter_are_refused_beside_one_that_goes_on(bench):
    folder = trained_adapter(bench)
    with pytest.raises(ConfigError, match=r"--lora_dropout belongs to a new LoRA adapter: leave it out, since .*first"):
        config_for(folder, bench.tmp_path / "second", lora_dropout=0.1)


def test_an_adapter_takes_a_learning_rate_of_its_own(tiny_model, tmp_path):
    def rate(**flags: Any) -> float | None:
        return config_for(tiny_model, tmp_path / "out", learning_rate=None, **flags).learning_rate

    assert rate() == 1e-6
    assert rate(lora_rank=4) == 1e-5, "to the digit, since it is printed"
    assert rate(stage="sft") == 2e-5
    assert rate(stage="sft", lora_rank=4) == 2e-4


class Bench:
    """Builds trainers with an adapter, as a run does."""

    def __init__(self, tiny_model: Path, tmp_path: Path) -> None:
        self.tiny_model, self.tmp_path = tiny_model, tmp_path
        self.pairs = numbered(8)

    def trainer(self, kind: Any = PackedTrainer, reference: Reference | None = None, **flags: Any) -> Any:
        model = flags.pop("model", None) or load(self.tiny_model)
        name = flags.pop("name", "out")
        if not isinstance(model, PeftModel):
            flags |= {"lora_rank": 4, "lora_alpha": 16.0}
        config = config_for(flags.pop("config_of", self.tiny_model), self.tmp_path / name, **flags)
        options: dict[str, Any] = {
            "model": model,
            "args": config,
            "train_dataset": self.pairs,
            "processing_class": AutoTokenizer.from_pretrained(self.tiny_model),
            "peft_config": None if isinstance(model, PeftModel) else lora_config(config, model),
        }
        if kind is PackedTrainer:
            options |= {"backend": "pairwise", "reference": reference}
        return kind(**options)

    def cache(self) -> ReferenceCache:
        return ReferenceCache(self.tmp_path / "cache", {})

    def losses(self, trainer: Any) -> list[float]:
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture
def bench(tiny_model, tmp_path) -> Bench:
    return Bench(tiny_model, tmp_path)


def test_packed_padded_and_cached_train_an_adapter_alike(bench):
    padded = bench.losses(bench.trainer(PreferenceTrainer, engine="padded"))
    assert padded[0] == pytest.approx(0.6931, abs=1e-4)
    assert padded[-1] < 0.69, "the adapter learns"
    assert bench.losses(bench.trainer(reference_cache="none")) == pytest.approx(padded, rel=1e-3)
    by_policy = Reference(load=None, cache=bench.cache())
    assert bench.losses(bench.trainer(reference=by_policy)) == pytest.approx(padded, rel=1e-3)
    loaded = Reference(load=lambda: load(bench.tiny_model), cache=bench.cache())
    assert bench.losses(bench.trainer(reference=loaded)) == pytest.approx(padded, rel=1e-3), "and agrees with the cache"


def test_the_model_under_an_adapter_stays_as_it_is(bench):
    trainer = bench.trainer(reference_cache="none")
    trainer.train()
    with trainer.model.disable_adapter():
        ids = torch.tensor([[5, 6, 7]])
        with trainer.ordinary_attention():
            torch.testing.assert_close(trainer.model(ids).logits, load(bench.tiny_model)(ids).logits)
    names = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert names and all("lora_" in name for name in names)
    start = load(bench.tiny_model).state_dict()
    for name, value in base_model(trainer.model).state_dict().items():
        if "lora_" not in name:
            assert torch.equal(value, start[name.replace(".base_layer", "")]), name


def trained_adapter(bench: Bench, **flags: Any) -> Path:
    """An adapter that does something, saved as a run leaves it."""
    trainer = bench.trainer(reference_cache="none", name="first", **flags)
    trainer.train()
    trainer.save_model()
    return bench.tmp_path / "first"


def test_what_is_saved_is_an_adapter_that_loads(bench):
    folder = trained_adapter(bench)
    assert (folder / "adapter_model.safetensors").exists() and not (folder / "model.safetensors").exists()
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(bench.tiny_model)
    assert (folder / "generation_config.json").exists()
    loaded = PeftModel.from_pretrained(load(bench.tiny_model), folder)
    ids = torch.tensor([[5, 6, 7]])
    assert not torch.allclose(loaded(ids).logits, load(bench.tiny_model)(ids).logits)


@pytest.mark.parametrize("cached", [False, True])
def test_an_adapter_that_goes_on_is_compared_with_what_it_was(cached, bench):
    folder = trained_adapter(bench)

    def resume(is_trainable: bool) -> PeftModel:
        return PeftModel.from_pretrained(load(bench.tiny_model), folder, is_trainable=is_trainable)

    reference = Reference(load=lambda: resume(is_trainable=False), cache=bench.cache()) if cached else None
    flags = {} if cached else {"reference_cache": "none"}
    trainer = bench.trainer(model=resume(is_trainable=True), reference=reference, name="second", **flags)
    losses = bench.losses(trainer)
    assert losses[0] == pytest.approx(0.6931, abs=1e-4), "at the start policy and reference are the same"
    assert losses[-1] < losses[0]
    trainer.save_model()
    assert not (bench.tmp_path / "second" / "ref").exists()
    before = PeftModel.from_pretrained(load(bench.tiny_model), folder).state_dict()
    after = PeftModel.from_pretrained(load(bench.tiny_model), bench.tmp_path / "second").state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


EVERYWHERE = {
    "embeddings": LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"], task_type="CAUSAL_LM"),
    "tokens": LoraConfig(
        r=2, target_modules=["q_proj"], trainable_token_indices=list(range(250)), task_type="CAUSAL_LM"
    ),
    "dora": LoraConfig(r=2, target_modules=["q_proj", "down_proj"], use_dora=True, task_type="CAUSAL_LM"),
    "whole": LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"], task_type="CAUSAL_LM"),
    "ia3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"),
}
"""Adapters with more than LoRA on linear layers, or whose parameters PEFT keeps in another way."""


@pytest.mark.parametrize("kind", [PackedTrainer, PreferenceTrainer])
@pytest.mark.parametrize("adapter", EVERYWHERE.values(), ids=EVERYWHERE)
def test_the_reference_of_an_adapter_that_goes_on_is_all_of_it(adapter, kind, bench):
    def untied() -> Any:
        """PEFT would give a tied head the tokens too."""
        return AutoModelForCausalLM.from_pretrained(bench.tiny_model, dtype=torch.float32, tie_word_embeddings=False)

    first = PeftModel(untied(), adapter)
    set_seed(0)
    for parameter in first.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    first.save_pretrained(bench.tmp_path / "first")
    model = PeftModel.from_pretrained(untied(), bench.tmp_path / "first", is_trainable=True)
    engine = {"engine": "padded"} if kind is PreferenceTrainer else {"reference_cache": "none"}
    losses = bench.losses(bench.trainer(kind, model=model, **engine))
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < losses[0]


def test_an_adapter_with_biases_trains_against_a_cached_reference(bench):
    """PEFT refuses a second adapter with biases, which only a live reference needs."""
    first = PeftModel(load(bench.tiny_model), LoraConfig(r=2, target_modules=["q_proj"], bias="all"))
    set_seed(0)
    for parameter in first.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    first.save_pretrained(bench.tmp_path / "first")

    def resume() -> PeftModel:
        return PeftModel.from_pretrained(load(bench.tiny_model), bench.tmp_path / "first", is_trainable=True)

    losses = bench.losses(bench.trainer(model=resume(), reference=Reference(load=resume, cache=bench.cache())))
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("flags", [{"loss": ["simpo"]}, {"reference_free": True}], ids=str)
def test_no_copy_of_an_adapter_stays_where_no_reference_is_read(flags, bench):
    model = PeftModel.from_pretrained(load(bench.tiny_model), trained_adapter(bench), is_trainable=True)
    trainer = bench.trainer(model=model, name="second", **flags)
    assert set(trainer.model.peft_config) == {"default"}
    assert not any(".ref." in name for name, _ in trainer.model.named_parameters())
    assert len(bench.losses(trainer)) == 3


@pytest.mark.parametrize("kind", ["new", "continued"])
def test_an_adapter_resumed_from_its_checkpoint_ends_like_one_that_was_not_interrupted(kind, bench):
    folder = trained_adapter(bench) if kind == "continued" else None
    flags = {"reference_cache": "none", "save_strategy": "steps", "save_steps": 2}

    def trainer(name: str) -> Any:
        if folder is None:
            return bench.trainer(name=name, **flags)
        model = PeftModel.from_pretrained(load(bench.tiny_model), folder, is_trainable=True)
        return bench.trainer(name=name, model=model, **flags)

    whole, resumed = trainer("whole"), trainer("resumed")
    losses = bench.losses(whole)
    resumed.train(resume_from_checkpoint=str(bench.tmp_path / "whole" / "checkpoint-2"))
    assert [e["loss"] for e in resumed.state.log_history if "loss" in e] == pytest.approx(losses, rel=1e-5)
    expected = get_peft_model_state_dict(whole.model)
    found = get_peft_model_state_dict(resumed.model)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_an_adapters_dropout_is_not_taken_for_the_models(bench):
    set_seed(0)
    trainer = bench.trainer(reference_cache="none", lora_dropout=0.5)
    dropouts = {name: m.p for name, m in trainer.model.named_modules() if isinstance(m, torch.nn.Dropout)}
    assert dropouts and all(p == 0.5 for name, p in dropouts.items() if "lora_dropout" in name)
    assert bench.losses(trainer)[0] == pytest.approx(0.6931, abs=1e-4), "a new adapter is 0, dropped out or not"


def test_an_adapter_that_goes_on_keeps_its_dropout_and_its_reference_has_none(bench):
    folder = trained_adapter(bench, lora_dropout=0.3)
    model = PeftModel.from_pretrained(load(bench.tiny_model), folder, is_trainable=True)
    trainer = bench.trainer(model=model, reference_cache="none", name="second")
    probabilities = {"default": set(), "ref": set()}
    for name, module in trainer.model.named_modules():
        if isinstance(module, torch.nn.Dropout) and ".lora_dropout." in name:
            probabilities[name.rpartition(".")[2]].add(module.p)
    assert probabilities == {"default": {0.3}, "ref": {0}}


@pytest.mark.parametrize("cached", [False, True])
def test_an_adapter_trains_on_a_model_of_4_bits(cached, bench, tmp_path, monkeypatch):
    # Every CPU as one with bfloat16 products, for which bitsandbytes would repack the layers.
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    config = config_for(bench.tiny_model, tmp_path / "out", lora_rank=4, load_in_4bit=True)
    tokenizer = AutoTokenizer.from_pretrained(bench.tiny_model)
    model = load_model(located(bench.tiny_model), config, tokenizer, ())
    assert model.is_loaded_in_4bit
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert layers and not any(layer.support_avx512bf16_for_cpu for layer in layers)
    reference = Reference(load=None, cache=bench.cache()) if cached else None
    flags = {} if cached else {"reference_cache": "none"}
    trainer = bench.trainer(model=model, reference=reference, load_in_4bit=True, **flags)
    adapter = [p for p in trainer.model.parameters() if p.requires_grad]
    assert adapter and all(p.dtype == torch.float32 for p in adapter)
    losses = bench.losses(trainer)
    assert losses[0] == pytest.approx(0.6931, abs=1e-4) and losses[-1] < 0.69


@pytest.mark.parametrize("cached", [False, True])
def test_an_adapter_goes_on_on_a_model_of_4_bits(cached, bench, tmp_path):
    folder = trained_adapter(bench)
    adapter, tokenizer = locate(str(folder)), AutoTokenizer.from_pretrained(bench.tiny_model)
    flags: dict[str, Any] = {"load_in_4bit": True} if cached else {"load_in_4bit": True, "reference_cache": "none"}
    config = config_for(folder, tmp_path / "second", **flags)

    def load_quantized(*, is_reference: bool) -> Any:
        return load_model(adapter, config, tokenizer, (), is_reference=is_reference)

    model = load_quantized(is_reference=False)
    assert model.is_loaded_in_4bit
    loaded = {name: p.clone() for name, p in model.named_parameters() if p.requires_grad}
    reference = Reference(load=lambda: load_quantized(is_reference=True), cache=bench.cache()) if cached else None
    trainer = bench.trainer(model=model, reference=reference, config_of=folder, name="second", **flags)
    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trained.keys() == loaded.keys()
    assert all(torch.equal(p, loaded[name]) for name, p in trained.items()), "TRL would have rounded it to bfloat16"
    losses = bench.losses(trainer)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5) and losses[-1] < losses[0]
