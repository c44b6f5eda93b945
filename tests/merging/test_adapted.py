"""Adapters that do not fit the base, or are not LoRA adapters, are refused."""

import json

import pytest
import torch
from peft import IA3Config, get_peft_model
from safetensors.torch import save_file

from dpo.errors import ModelError
from tests.merging.conftest import gpt2, llama, load, weights_of


def test_an_adapter_of_another_shape_is_refused_with_the_first_tensor(make_base, make_adapter, run_merge) -> None:
    adapter = make_adapter(make_base(), target_modules=["q_proj"])
    wider = make_base(llama(hidden_size=32), name="wider")
    with pytest.raises(
        ModelError,
        match=r"model\.layers\.0\.self_attn\.q_proj\.lora_A\.weight has the shape \(4, 16\), "
        r"but the base needs \(4, 32\)",
    ):
        run_merge(adapter, wider, other_base=True)


def test_target_modules_that_the_base_does_not_have_are_refused(make_base, make_adapter, run_merge) -> None:
    adapter = make_adapter(make_base(), target_modules=["q_proj"])
    other = make_base(gpt2(), name="other")
    with pytest.raises(ModelError, match=r"does not fit .*q_proj"):
        run_merge(adapter, other, other_base=True)


@pytest.mark.parametrize(
    ("layers", "message"), [(1, "the base has no layer for"), (3, "the adapter's file does not contain")]
)
def test_a_base_with_fewer_or_more_layers_is_refused(layers, message, make_base, make_adapter, run_merge) -> None:
    adapter = make_adapter(make_base(), target_modules=["q_proj", "v_proj"])
    other = make_base(llama(num_hidden_layers=layers), name="other")
    with pytest.raises(
        ModelError, match=rf"{message} model\.layers\.{layers if layers == 1 else 2}\.self_attn\..* \(and 3 more\)"
    ):
        run_merge(adapter, other, other_base=True)


def test_resized_embeddings_are_refused_with_advice(make_base, make_adapter, run_merge) -> None:
    base = make_base()
    adapter = make_adapter(base, modules_to_save=["embed_tokens"])
    weights = weights_of(adapter / "adapter_model.safetensors")
    key = next(key for key in weights if "embed_tokens" in key)
    save_file(weights | {key: torch.cat([weights[key], weights[key][:2]])}, adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"embed_tokens.* has the shape \(402, 16\).*\n.*resized"):
        run_merge(adapter)


def test_an_adapter_of_another_kind_is_refused(make_base, run_merge, tmp_path) -> None:
    model = get_peft_model(load(make_base()), IA3Config(target_modules=["k_proj"], feedforward_modules=[]))
    model.save_pretrained(tmp_path / "ia3")
    with pytest.raises(ModelError, match=r"expected a LoRA adapter .* found IA3"):
        run_merge(tmp_path / "ia3")


def test_weights_that_do_not_match_config_json_are_refused(make_base, make_adapter, run_merge) -> None:
    base = make_base()
    adapter = make_adapter(base)
    weights = weights_of(base / "model.safetensors")
    key = "model.layers.1.mlp.up_proj.weight"
    save_file(weights | {key: weights[key][:-1].contiguous()}, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError,
        match=r"up_proj\.weight: expected the shape \(24, 16\) from config\.json, found \(23, 16\) in the file",
    ):
        run_merge(adapter)


def test_an_adapter_with_nan_weights_is_refused(make_base, make_adapter, run_merge) -> None:
    adapter = make_adapter(make_base())
    weights = weights_of(adapter / "adapter_model.safetensors")
    key = next(key for key in weights if "1.self_attn.k_proj.lora_B" in key)
    save_file(weights | {key: weights[key] * torch.nan}, adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"model\.layers\.1\.self_attn\.k_proj: PEFT cannot merge the adapter"):
        run_merge(adapter)


def test_quantized_weights_are_refused_with_advice(make_base, make_adapter, run_merge) -> None:
    base = make_base()
    adapter = make_adapter(base)
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"its weights are quantized.*\n.*--other_base"):
        run_merge(adapter)


def test_an_adapter_without_weights_is_refused(make_base, make_adapter, run_merge) -> None:
    adapter = make_adapter(make_base())
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="its weights cannot be read"):
        run_merge(adapter)
