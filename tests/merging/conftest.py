"""Tiny bases and adapters with random weights, and what PEFT itself makes of them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)

from dpo.merging.names import locate_base
from dpo.merging.report import Merge
from dpo.merging.run import MergeOptions, merge

IDS = torch.arange(40, 72)[None]
"""Any tokens of the tiny models."""

MakeBase = Callable[..., Path]
MakeAdapter = Callable[..., Path]
RunMerge = Callable[..., tuple[Merge, Path]]


def llama(**changes: Any) -> LlamaConfig:
    sizes = {"vocab_size": 400, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    return LlamaConfig(**sizes | heads | {"tie_word_embeddings": False} | changes)


def gpt2(**changes: Any) -> GPT2Config:
    return GPT2Config(**{"vocab_size": 400, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64} | changes)


@pytest.fixture
def make_base(tmp_path: Path, chatml_folder: Path) -> MakeBase:
    """Saves a random model with a tokenizer, and returns its folder."""

    def make(
        config: PretrainedConfig | None = None,
        *,
        name: str = "base",
        dtype: torch.dtype = torch.float32,
        max_shard_size: str = "5GB",
    ) -> Path:
        set_seed(0)
        model = AutoModelForCausalLM.from_config(config or llama(), dtype=torch.float32)
        for parameter in model.parameters():  # biases and norms too, which would be zeros and ones
            parameter.data += 0.3 * torch.randn_like(parameter)
        folder = tmp_path / name
        model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
        for file in chatml_folder.iterdir():
            shutil.copy(file, folder)
        return folder

    return make


@pytest.fixture
def make_adapter(tmp_path: Path) -> MakeAdapter:
    """Saves an adapter on a base, every trained number of it random, and returns its folder."""

    def make(base: Path, *, name: str = "adapter", **options: Any) -> Path:
        set_seed(1)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        options = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options
        adapted = get_peft_model(model, LoraConfig(**options))
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
        adapted.save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def run_merge(tmp_path: Path) -> RunMerge:
    """Merges an adapter into the base it names, unchecked by default, and returns the report and the folder."""

    def run(
        adapter: Path, model: Path | None = None, *, other_base: bool = False, **options: Any
    ) -> tuple[Merge, Path]:
        located = locate_base(str(adapter), model and str(model), other_base=other_base)
        output = tmp_path / "merged"
        options = {"check_prompts": 0} | options
        return merge(located, MergeOptions(base="base", adapter="adapter", output=output, **options)), output

    return run


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def with_adapter(base: Path, adapter: Path) -> PeftModel:
    return PeftModel.from_pretrained(load(base), adapter)


def weights_of(file: Path) -> dict[str, torch.Tensor]:
    """Copies of a file's tensors, which stay valid when the file is replaced."""
    return {key: tensor.clone() for key, tensor in load_file(file).items()}


@torch.inference_mode()
def logits(model: PreTrainedModel | PeftModel) -> torch.Tensor:
    return model(input_ids=IDS).logits


def save_template(folder: Path, tokenizer: Path, template: str) -> None:
    """Save a tokenizer with a template in an adapter's folder, as training does."""
    loaded = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    loaded.chat_template = template
    loaded.save_pretrained(folder)
