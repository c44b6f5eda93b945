"""Dtype, embeddings and the tokenizer that is saved."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo.data.config import DataConfig
from dpo.data.pipeline import prepare
from dpo.data.rendering.tokenization import load_tokenizer
from dpo.errors import ModelError, TokenizerError
from dpo.training.policy.model import load_model, load_tokenizer_for, stop_at
from dpo.training.settings.resolving import TrainingConfig
from tests.builders import located


def config_for(model, tmp_path, **options) -> TrainingConfig:
    return TrainingConfig(model_name_or_path=str(model), output_dir=str(tmp_path / "out"), **options)


def test_auto_is_sdpa_on_a_cpu(tiny_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = load_model(located(tiny_model), config_for(tiny_model, tmp_path), tokenizer, ())
    assert model.config._attn_implementation == "sdpa"
    assert model.dtype == torch.float32


def test_half_precision_weights_are_for_deepspeed_which_keeps_float32_copies(tiny_model, tmp_path, monkeypatch):
    plain = config_for(tiny_model, tmp_path, bf16=True, use_cpu=True)
    assert plain.dtype == torch.float32
    plain.deepspeed = {"zero_optimization": {"stage": 2}}
    assert plain.dtype == torch.bfloat16


def test_policy_and_reference_get_the_same_new_embedding_rows(tiny_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    num_before = len(tokenizer)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|eot_id|>"]})
    config = config_for(tiny_model, tmp_path)
    policy = load_model(located(tiny_model), config, tokenizer, ("<|eot_id|>",))
    reference = load_model(located(tiny_model), config, tokenizer, ("<|eot_id|>",))
    rows = policy.get_input_embeddings().weight
    assert len(rows) == num_before + 1
    assert torch.equal(rows, reference.get_input_embeddings().weight)


def test_a_missing_model_is_a_user_error(tiny_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(located(tmp_path / "none"), config_for(tiny_model, tmp_path), tokenizer, ())


def test_the_saved_tokenizer_has_the_template_and_gives_the_prepared_ids(tiny_model, rows, tmp_path):
    prepared = prepare(DataConfig(datasets=(f"triplets={rows}",)), load_tokenizer(str(tiny_model)), progress=False)
    tokenizer = load_tokenizer_for(located(tiny_model), config_for(tiny_model, tmp_path), prepared)
    pair = prepared.train[0]
    ids = tokenizer.apply_chat_template(pair["prompt"], add_generation_prompt=True, return_dict=False)
    assert ids == pair["prompt_ids"]


def test_added_control_tokens_have_the_ids_that_were_prepared(tiny_model, rows, tmp_path):
    data = DataConfig(datasets=(f"triplets={rows}",), template="llama3", add_control_tokens=True)
    prepared = prepare(data, load_tokenizer(str(tiny_model)), progress=False)
    assert prepared.added_tokens == ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    tokenizer = load_tokenizer_for(located(tiny_model), config_for(tiny_model, tmp_path), prepared)
    assert prepared.train[0]["chosen_ids"][-1] == tokenizer.convert_tokens_to_ids("<|eot_id|>")


def test_a_tokenizer_that_disagrees_with_the_prepared_ids_is_refused(tiny_model, rows, tmp_path):
    prepared = prepare(DataConfig(datasets=(f"triplets={rows}",)), load_tokenizer(str(tiny_model)), progress=False)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens(["plus"])
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(TokenizerError, match="from token"):
        load_tokenizer_for(located(tmp_path / "other"), config_for(tiny_model, tmp_path), prepared)


def test_generation_stops_at_the_trained_end_token(tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.generation_config.eos_token_id = 7
    stop_at(model, 9)
    stop_at(model, 9)
    assert model.generation_config.eos_token_id == [7, 9]
