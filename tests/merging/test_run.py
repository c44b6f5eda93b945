"""A merged model gives the same numbers as the base with the adapter in PEFT."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, GPT2Model, MixtralConfig

from dpo.errors import ModelError
from dpo.merging.adapted import AdaptedModel
from tests.builders import put_on_hub
from tests.merging.conftest import gpt2, llama, load, logits, save_template, weights_of, with_adapter

EQUAL = 3e-5
"""Tolerance for float32 sums in another order, relative to the largest logit. The adapters here move logits by several
percent at least."""
KINDS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "ranks": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 32}},
    "gaussian": {"init_lora_weights": "gaussian"},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "embeddings dora": {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True},
    "head": {"target_modules": ["lm_head", "v_proj"]},
    "head and norm whole": {"modules_to_save": ["lm_head", "norm"]},
    "embeddings whole": {"modules_to_save": ["embed_tokens"]},
    "tokens": {"trainable_token_indices": [5, 41]},
}


def assert_merged(base: Path, adapter: Path, merged: Path) -> None:
    expected = logits(with_adapter(base, adapter))
    assert (expected - logits(load(base))).abs().max() > 0.3  # the adapter has an effect
    torch.testing.assert_close(logits(load(merged)), expected, rtol=0, atol=EQUAL * float(expected.abs().max()))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_a_merged_model_equals_the_base_with_the_adapter(options, tied, make_base, make_adapter, run_merge) -> None:
    base = make_base(llama(tie_word_embeddings=tied))
    adapter = make_adapter(base, **options)
    report, merged = run_merge(adapter)
    assert report.whole_base_because is None
    assert_merged(base, adapter, merged)


@pytest.mark.parametrize(
    "options", [{"target_modules": ["embed_tokens", "q_proj"]}, {"modules_to_save": ["embed_tokens"]}], ids=str
)
def test_adapters_that_peft_ties_are_merged_into_both_weights(options, make_base, make_adapter, run_merge) -> None:
    base = make_base(llama(tie_word_embeddings=True))
    adapter = make_adapter(base, ensure_weight_tying=True, **options)
    _, merged = run_merge(adapter)
    assert_merged(base, adapter, merged)


@pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_every_weight_equals_the_one_that_peft_merges(options, make_base, make_adapter, run_merge) -> None:
    base = make_base(llama(tie_word_embeddings=True))
    adapter = make_adapter(base, **options)
    _, merged = run_merge(adapter)
    expected = with_adapter(base, adapter).merge_and_unload().state_dict()
    found = load(merged).state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6)


def test_tied_embeddings_stay_tied_unless_the_adapter_changes_one(make_base, make_adapter, run_merge) -> None:
    base = make_base(llama(tie_word_embeddings=True))
    _, merged = run_merge(make_adapter(base))
    assert "lm_head.weight" not in weights_of(merged / "model.safetensors")
    _, merged = run_merge(make_adapter(base, target_modules=["lm_head"]))
    weights = weights_of(merged / "model.safetensors")
    assert torch.equal(
        weights["model.embed_tokens.weight"], weights_of(base / "model.safetensors")["model.embed_tokens.weight"]
    )
    assert not torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])
    assert AutoConfig.from_pretrained(merged).tie_word_embeddings is False


@pytest.mark.parametrize("options", [{}, {"bias": "all"}, {"bias": "lora_only"}, {"lora_bias": True}], ids=str)
def test_gpt2_s_transposed_layers_and_biases_are_merged(options, make_base, make_adapter, run_merge) -> None:
    base = make_base(gpt2())
    adapter = make_adapter(base, fan_in_fan_out=True, target_modules=["c_attn", "c_fc", "c_proj"], **options)
    report, merged = run_merge(adapter)
    assert report.whole_base_because is None
    assert report.num_layers == 8
    assert_merged(base, adapter, merged)


def test_a_checkpoint_without_the_model_s_prefix_is_merged(make_base, make_adapter, run_merge, tmp_path) -> None:
    base = make_base(gpt2())
    adapter = make_adapter(base, fan_in_fan_out=True, target_modules=["c_attn"])
    GPT2Model.from_pretrained(base).save_pretrained(tmp_path / "bare")  # as gpt2 is published, without "transformer."
    (tmp_path / "bare" / "model.safetensors").replace(base / "model.safetensors")
    assert "h.0.attn.c_attn.weight" in weights_of(base / "model.safetensors")
    report, merged = run_merge(adapter)
    assert report.whole_base_because is None
    assert "h.0.attn.c_attn.weight" in weights_of(merged / "model.safetensors")
    assert_merged(base, adapter, merged)


def test_experts_that_loading_converts_are_copied_unchanged(make_base, make_adapter, run_merge) -> None:
    experts = {"num_local_experts": 2, "num_experts_per_tok": 1, "num_key_value_heads": 1, "num_attention_heads": 2}
    sizes = {"vocab_size": 400, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    base = make_base(MixtralConfig(**experts, **sizes))
    adapter = make_adapter(base, target_modules=["q_proj", "o_proj"])
    report, merged = run_merge(adapter)
    assert report.whole_base_because is None
    before, after = (weights_of(folder / "model.safetensors") for folder in (base, merged))
    assert before.keys() == after.keys()
    kept = [key for key in before if "experts" in key]
    assert len(kept) == 2 * 2 * 3
    assert all(torch.equal(before[key], after[key]) for key in kept)
    assert_merged(base, adapter, merged)


def test_a_base_in_the_hub_s_cache_is_found_by_its_id(make_base, make_adapter, run_merge) -> None:
    base = make_base(max_shard_size="8KB")
    adapter = make_adapter(base)
    rewrite_config(adapter, base_model_name_or_path=put_on_hub("org/merge-base", main=base))
    report, merged = run_merge(adapter, check_prompts=1)
    assert report.whole_base_because is None
    assert report.comparison.agrees()
    assert_merged(base, adapter, merged)


@pytest.mark.parametrize("whole", [False, True])
def test_a_hub_base_has_the_revision_that_the_adapter_names(whole, make_base, make_adapter, run_merge) -> None:
    base = make_base()
    adapter = make_adapter(base)
    if whole:
        torch.save(weights_of(base / "model.safetensors"), base / "pytorch_model.bin")
        (base / "model.safetensors").unlink()
    name = put_on_hub("org/merge-revisions", main=make_base(llama(hidden_size=32), name="wider"), step1000=base)
    rewrite_config(adapter, base_model_name_or_path=name, revision="step1000")
    report, merged = run_merge(adapter, check_prompts=1)
    assert (report.whole_base_because is not None) is whole
    assert report.comparison.agrees()
    assert_merged(base, adapter, merged)


def rewrite_config(adapter: Path, **changes: str) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_half_precision_is_the_float32_merge_rounded_once(make_base, make_adapter, run_merge) -> None:
    base = make_base(dtype=torch.bfloat16)
    adapter = make_adapter(base)
    report, merged = run_merge(adapter, check_prompts=4)
    assert report.dtype == "bfloat16"
    expected = with_adapter(base, adapter).merge_and_unload().state_dict()
    weights = weights_of(merged / "model.safetensors")
    for name, weight in weights.items():
        assert weight.dtype == torch.bfloat16
        torch.testing.assert_close(weight.float(), expected[name], rtol=2**-8, atol=1e-6)
    exact = [torch.equal(weight, expected[name].to(torch.bfloat16)) for name, weight in weights.items()]
    assert sum(exact) >= len(exact) - 2  # the last bit of float32 may decide the rounding of a weight or two
    assert report.comparison.difference < report.comparison.allowed < report.comparison.rounding_effect


def test_another_dtype_applies_to_every_weight_and_to_config_json(make_base, make_adapter, run_merge) -> None:
    report, merged = run_merge(make_adapter(make_base()), dtype="float16")
    assert report.dtype == "float16"
    assert {weight.dtype for weight in weights_of(merged / "model.safetensors").values()} == {torch.float16}
    assert json.loads((merged / "config.json").read_text())["dtype"] == "float16"


def test_an_adapter_on_a_parameter_needs_the_whole_base(make_base, make_adapter, run_merge) -> None:
    base = make_base()
    adapter = make_adapter(base, target_modules=[], target_parameters=["q_proj.weight", "v_proj.weight"])
    report, merged = run_merge(adapter)
    assert "ParamWrapper" in report.whole_base_because
    assert_merged(base, adapter, merged)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_adapter_that_changes_the_base_s_weights_needs_the_whole_base(
    init, make_base, make_adapter, run_merge
) -> None:
    base = make_base()
    adapter = make_adapter(base, init_lora_weights=init)
    report, merged = run_merge(adapter)
    assert init in report.whole_base_because
    assert_merged(base, adapter, merged)


def test_a_base_without_safetensors_is_loaded_whole(make_base, make_adapter, run_merge) -> None:
    base = make_base(dtype=torch.float16)
    adapter = make_adapter(base)
    torch.save(weights_of(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    report, _ = run_merge(adapter, check_prompts=4)
    assert report.whole_base_because == "it has no safetensors files"
    assert report.dtype == "float16"
    assert report.comparison.difference < report.comparison.allowed


def test_the_tokenizer_the_template_and_the_generation_config_are_the_adapter_s_if_it_has_them(
    make_base, make_adapter, run_merge, chatml_folder
) -> None:
    base = make_base()
    adapter = make_adapter(base)
    _, merged = run_merge(adapter)
    assert AutoTokenizer.from_pretrained(merged).chat_template is None
    assert json.loads((merged / "generation_config.json").read_text()).get("eos_token_id") != [7, 9]
    save_template(adapter, chatml_folder, "{{ messages[0].content }}<|im_end|>")
    (adapter / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    _, merged = run_merge(adapter)
    tokenizer = AutoTokenizer.from_pretrained(merged)
    assert tokenizer.chat_template == "{{ messages[0].content }}<|im_end|>"
    assert tokenizer.eos_token == "<|im_end|>"
    assert (
        tokenizer("Name a noble gas.").input_ids == AutoTokenizer.from_pretrained(base)("Name a noble gas.").input_ids
    )
    assert load(merged).generation_config.eos_token_id == [7, 9]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("part", ["model.layers.1.self_attn.v_proj", "model"], ids=["one layer", "all"])
def test_a_merge_that_misses_a_weight_writes_nothing(
    part, dtype, make_base, make_adapter, run_merge, tmp_path, monkeypatch
) -> None:
    adapter = make_adapter(make_base())
    before = {*tmp_path.iterdir()}
    right = AdaptedModel.merge
    monkeypatch.setattr(
        AdaptedModel, "merge", lambda self, name, weight: weight if part in name else right(self, name, weight)
    )
    with pytest.raises(ModelError, match=f"the merged model failed its check: .* in {dtype} by"):
        run_merge(adapter, check_prompts=4, dtype=dtype)
    assert {*tmp_path.iterdir()} == before


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_every_kind_passes_the_check_in_half_precision(options, make_base, make_adapter, run_merge) -> None:
    adapter = make_adapter(make_base(llama(tie_word_embeddings=True)), **options)
    report, _ = run_merge(adapter, check_prompts=4, dtype="bfloat16")
    assert report.comparison.rounding_effect > 1e-3


def test_the_weights_have_the_permissions_of_config_json(make_base, make_adapter, run_merge) -> None:
    _, merged = run_merge(make_adapter(make_base()))
    assert (merged / "model.safetensors").stat().st_mode == (merged / "config.json").stat().st_mode
