"""Weights are loaded at the right revision: an adapter and its base model each have their own."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from dpo.models.loading import load_causal_lm, load_chat_tokenizer
from dpo.models.locating import locate
from dpo.training.run import run
from tests.builders import put_on_hub

IDS = torch.arange(40, 60)[None]


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def save_adapter(base: Path, folder: Path, *, seed: int, **config: str) -> Path:
    """Save a random adapter for a base model, with changes to its configuration."""
    torch.manual_seed(seed)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules="all-linear"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter)
    model.save_pretrained(folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return folder


def test_adapter_and_base_are_each_loaded_at_their_own_revision(tiny_llamas: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = tiny_llamas
    base = put_on_hub("org/loading-base", main=first, step1000=second)
    config = {"base_model_name_or_path": base, "revision": "step1000"}
    old, new = (save_adapter(second, tmp_path / f"v{seed}", seed=seed, **config) for seed in (1, 2))
    located = locate(put_on_hub("org/loading-adapter", main=old, v2=new), revision="v2")
    model = load_causal_lm(located)
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(second), new)
    torch.testing.assert_close(logits(model), logits(expected))
    assert load_chat_tokenizer(located).name_or_path == base


def test_an_adapter_that_training_saves_again_names_the_revision_that_was_loaded(
    tiny_llamas: tuple[Path, Path], tmp_path: Path
) -> None:
    base = put_on_hub("org/going-on-base", step2000=tiny_llamas[0])
    adapter = save_adapter(tiny_llamas[0], tmp_path / "adapter", seed=1, base_model_name_or_path=base)
    load_causal_lm(locate(str(adapter), revision="step2000")).save_pretrained(tmp_path / "again")
    assert locate(str(tmp_path / "again")).base_revision == "step2000"


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_finds_the_revision_of_the_base_that_it_was_trained_on(
    tiny_llamas: tuple[Path, Path], rows: Path, tmp_path: Path
) -> None:
    first, second = tiny_llamas
    base = put_on_hub("org/pythia", main=first, step1000=second)
    run(
        [
            *("--datasets", f"triplets={rows}", "--model_name_or_path", base, "--model_revision", "step1000"),
            *("--output_dir", str(tmp_path / "out"), "--lora_rank", "2", "--max_steps", "1", "--report_to", "none"),
            *("--global_batch_size", "4", "--save_strategy", "no"),
        ]
    )
    located = locate(str(tmp_path / "out"))
    assert (located.base, located.base_revision) == (base, "step1000")
    model = load_causal_lm(located)
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), logits(AutoModelForCausalLM.from_pretrained(second)))
