"""The DeepSpeed files in ds_configs/, and the checks of a DeepSpeed file against the flags."""

import json

import pytest

from dpo.errors import ConfigError
from dpo.training.settings.deepspeed_config import load_deepspeed_config
from dpo.training.settings.flags import parse_flags
from dpo.training.settings.resolving import TrainingConfig
from tests.builders import ROOT

SHIPPED = {"zero1": 1, "zero2": 2, "zero3": 3, "zero3_offload": 3}


def config_with(content: dict, tmp_path, *flags: str) -> TrainingConfig:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps(content))
    required = ["--datasets", "nectar", "--model_name_or_path", "m", "--output_dir", str(tmp_path / "out")]
    return TrainingConfig(**parse_flags([*required, "--use_cpu", "--deepspeed", str(file), *flags])[1])


def test_every_shipped_file_has_its_stage_and_leaves_the_rest_to_the_flags(tmp_path):
    files = {file.stem: file for file in (ROOT / "ds_configs").glob("*.json")}
    assert files.keys() == SHIPPED.keys()
    for name, stage in SHIPPED.items():
        content = load_deepspeed_config(files[name])
        assert content["zero_optimization"]["stage"] == stage
        for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
            assert content[key] == "auto"
        assert content["bf16"]["enabled"] == content["fp16"]["enabled"] == "auto"


def test_at_stage_3_the_final_model_is_gathered(tmp_path):
    file = tmp_path / "ds.json"
    file.write_text('{"zero_optimization": {"stage": 3}}')
    assert load_deepspeed_config(file)["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True
    file.write_text('{"zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": false}}')
    with pytest.raises(ConfigError, match="would contain shards instead of a model"):
        load_deepspeed_config(file)


def test_batch_sizes_that_the_json_leaves_out_come_from_the_flags(tmp_path):
    config = config_with({"zero_optimization": {"stage": 2}}, tmp_path, "--global_batch_size", "8")
    filled = config.hf_deepspeed_config.config
    assert filled["train_batch_size"] == 8
    assert filled["train_micro_batch_size_per_gpu"] * filled["gradient_accumulation_steps"] == 8


def test_a_change_of_accumulation_reaches_deepspeed(tmp_path):
    config = config_with({}, tmp_path, "--global_batch_size", "8", "--per_device_train_batch_size", "8")
    config.set_accumulation(3)
    filled = config.hf_deepspeed_config.config
    assert filled is config.deepspeed_plugin.deepspeed_config
    assert filled["gradient_accumulation_steps"] == 3
    assert filled["train_batch_size"] == 3 * filled["train_micro_batch_size_per_gpu"]


@pytest.mark.parametrize(
    ("zero", "named"),
    [
        ({"stge": 2}, "Did you mean stage"),
        ({"stage": 7}, r"zero_optimization\.stage: expected 0, 1, 2 or 3, found 7"),
        ({"stage": "two"}, "stage"),
    ],
)
def test_what_deepspeed_would_refuse_is_refused_before_the_model_is_loaded(zero, named, tmp_path):
    with pytest.raises(ConfigError, match=named):
        config_with({"zero_optimization": zero}, tmp_path)


def test_invalid_json_and_a_missing_file_are_errors_that_say_what_to_look_for(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text('{"zero_optimization": {"stage": 2},}')
    with pytest.raises(
        ConfigError, match=r"line 1 column 36.*\n  JSON allows neither comments nor a comma after the last"
    ):
        load_deepspeed_config(file)
    with pytest.raises(ConfigError, match=rf"cannot be read: No such file or directory\. Did you mean {file}\?"):
        load_deepspeed_config(tmp_path / "mien.json")


@pytest.mark.parametrize(
    ("name", "meant"), [("zero_optimisation", "zero_optimization"), ("train_batch_sizee", "train_batch_size")]
)
def test_a_misspelled_key_that_deepspeed_would_ignore_is_refused(name, meant, tmp_path):
    with pytest.raises(ConfigError, match=f"unknown key '{name}'. Did you mean {meant}"):
        config_with({name: 4}, tmp_path)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_file_that_is_not_a_json_object_is_refused(text, tmp_path):
    file = tmp_path / "ds.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"ds\.json"):
        load_deepspeed_config(file)


@pytest.mark.parametrize(
    ("content", "flags", "named"),
    [
        (
            {"train_micro_batch_size_per_gpu": 4},
            ["--per_device_train_batch_size", "1"],
            "train_micro_batch_size_per_gpu=4, but the flags give per_device_train_batch_size=1",
        ),
        (
            {"gradient_clipping": 0.5},
            ["--max_grad_norm", "1.0"],
            "gradient_clipping=0.5, but the flags give max_grad_norm=1.0",
        ),
        (
            {"optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}},
            ["--learning_rate", "1e-6"],
            "optimizer.params.lr=0.001, but the flags give learning_rate=1e-06",
        ),
    ],
)
def test_a_value_that_contradicts_a_flag_is_refused_naming_both(content, flags, named, tmp_path):
    with pytest.raises(ConfigError) as error:
        config_with({"zero_optimization": {"stage": 2}} | content, tmp_path, *flags)
    assert named in str(error.value)
    assert "ds.json" in str(error.value)


def test_auto_takes_the_flags_value(tmp_path):
    content = load_deepspeed_config(ROOT / "ds_configs/zero2.json")
    config = config_with(content, tmp_path, "--global_batch_size", "8", "--per_device_train_batch_size", "2")
    assert config.hf_deepspeed_config.config["gradient_accumulation_steps"] == 4
    assert config.hf_deepspeed_config.config["train_batch_size"] == 8
