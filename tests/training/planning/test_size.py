"""Parameter counts without weights, and the memory that training needs."""

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from dpo.errors import ConfigError, ModelError
from dpo.models.locating import LocatedModel, locate
from dpo.training.planning.dry_run import Plan
from dpo.training.planning.size import ModelSize, holdings, measure
from dpo.training.settings.flags import parse_flags
from tests.builders import ROOT

BILLION = 10**9
ALL = ModelSize(architecture="Llama", parameters=BILLION, trained=BILLION)
ADAPTER = ModelSize(architecture="Llama", parameters=BILLION, trained=BILLION // 100)


def plan(*flags: str, **more: Any) -> Plan:
    required = ["--datasets", "nectar", "--model_name_or_path", "m", "--output_dir", "out", "--dry_run"]
    return Plan(**parse_flags([*required, *flags])[1] | more)


def gigabytes(size: ModelSize, config: Plan, devices: int = 8) -> list[float]:
    """Memory of weights, gradients and optimizer state per device, in 10^9 bytes."""
    return [holding.gib * 2**30 / BILLION for holding in holdings(size, config, devices=devices)]


def test_parameters_are_counted_from_the_configuration(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    size = measure(locate(str(tiny_model)), plan())
    assert size.parameters == size.trained == sum(weights.numel() for weights in model.parameters())
    assert (size.architecture, size.adapter) == ("LlamaForCausalLM", 0)


def test_a_zero_3_configuration_does_not_shard_what_is_counted(tiny_model: Path) -> None:
    config = plan("--deepspeed", str(ROOT / "ds_configs/zero3.json"))
    assert measure(locate(str(tiny_model)), config).parameters == measure(locate(str(tiny_model)), plan()).parameters


def test_an_adapter_s_parameters_are_rank_times_both_sides_of_each_layer(tiny_model: Path) -> None:
    size = measure(locate(str(tiny_model)), plan(lora_rank=4, lora_target_modules=["q_proj", "v_proj"]))
    assert size.trained == 2 * 4 * ((32 + 32) + (32 + 16)), "two layers, 32 wide, values of 2 x 8"
    assert size.adapter == size.trained
    with pytest.raises(ConfigError, match="--lora_target_modules qq: LlamaForCausalLM has no such layer"):
        measure(locate(str(tiny_model)), plan(lora_rank=4, lora_target_modules=["qq"]))


def test_a_model_that_is_already_an_adapter_trains_that_adapter(tiny_model: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path)
    size = measure(locate(str(tmp_path)), plan())
    assert size.trained == size.adapter == 2 * 2 * (32 + 32)


def test_an_adapter_of_an_earlier_run_is_measured_by_the_flags_of_that_run(tiny_model: Path) -> None:
    earlier = plan(lora_rank=4, lora_target_modules=["q_proj"])
    made = LocatedModel(base=str(tiny_model), adapter="output/sft", tokenizer=str(tiny_model))
    assert measure(made, plan(), adapter_by=earlier).trained == 2 * 4 * (32 + 32)


def test_a_folder_without_a_configuration_is_a_model_error(chatml_folder: Path) -> None:
    with pytest.raises(ModelError, match="its configuration cannot be used"):
        measure(locate(str(chatml_folder)), plan())


@pytest.mark.parametrize(
    ("stage", "expected"),
    [(1, [2, 2, 12 / 8]), (2, [2, 2 / 8, 12 / 8]), (3, [2 / 8, 2 / 8, 12 / 8])],
)
def test_zero_shards_what_the_paper_says(stage: int, expected: list[float]) -> None:
    config = plan("--deepspeed", str(ROOT / f"ds_configs/zero{stage}.json"), "--bf16")
    assert gigabytes(ALL, config) == pytest.approx(expected)


def test_without_deepspeed_every_device_holds_all_in_float32() -> None:
    assert gigabytes(ALL, plan("--bf16")) == pytest.approx([4, 4, 8])


def test_rmsprop_keeps_half_of_what_adam_keeps() -> None:
    assert gigabytes(ALL, plan("--optim", "rmsprop"))[2] == pytest.approx(4)
    assert gigabytes(ALL, plan("--optim", "adamw_bnb_8bit"))[2] == pytest.approx(2)


def test_an_adapter_alone_has_gradients_and_optimizer_state() -> None:
    config = plan("--deepspeed", str(ROOT / "ds_configs/zero2.json"), "--bf16")
    assert gigabytes(ADAPTER, config) == pytest.approx([2 * 1.01, 2 * 0.01 / 8, 12 * 0.01 / 8])


def test_offloaded_parts_are_listed_as_host_memory() -> None:
    config = plan("--deepspeed", str(ROOT / "ds_configs/zero3_offload.json"), "--bf16")
    weights, gradients, optimizer = holdings(ALL, config, devices=2)
    assert (weights.in_host_memory, gradients.in_host_memory, optimizer.in_host_memory) == (True, False, True)
    assert str(weights) == "weights        0.93 GiB = 2 bytes x 1,000,000,000 / 2 devices, in host memory"
