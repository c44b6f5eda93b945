"""Bad input gives a clear message and exit code 2, without a traceback or incomplete files."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from tests.builders import ROOT

spec = importlib.util.spec_from_file_location("main_script", ROOT / "main.py")
assert spec is not None and spec.loader is not None
main_script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(main_script)


@pytest.fixture
def fail(tiny_model, rows, tmp_path, monkeypatch, capsys):
    """Run main.py with bad flags, check how it ends, and return its error message."""

    def run(*flags: str) -> str:
        monkeypatch.setenv("DPO_CACHE", str(tmp_path / "cache"))
        output_dir = tmp_path / "out"
        good = ["--datasets", f"triplets={rows}", "--model_name_or_path", str(tiny_model), "--output_dir"]
        monkeypatch.setattr(sys, "argv", ["main.py", *good, str(output_dir), *flags])
        before = sorted(tmp_path.rglob("*"))
        assert main_script.main(sys.argv[1:]) == 2
        written = [path for path in tmp_path.rglob("*") if path not in before and "cache" not in str(path)]
        assert written == []
        assert not list((tmp_path / "cache").rglob(".*")), "an incomplete preparation is not kept"
        message = capsys.readouterr().err
        parts = [part.lstrip() for part in re.split(r"[\r\n]", message)]
        assert any(part.startswith("error: ") for part in parts), "only progress bars may come before it"
        assert "Traceback" not in message
        return message

    return run


def test_an_unknown_adapter(fail):
    message = fail("--datasets", "nectarine")
    assert "unknown adapter 'nectarine'. Did you mean nectar?" in message and "orca_dpo_pairs" in message


def test_an_unknown_template(fail):
    message = fail("--template", "chatlm")
    assert (
        "unknown template 'chatlm'" in message and "chatml, hh, llama3, mistral, model, neural_chat, zephyr" in message
    )


def test_an_unknown_flag(fail):
    assert "--max_length" in fail("--max_lenght", "100")


def test_a_missing_file(fail, tmp_path):
    assert "there is no file or folder" in fail("--datasets", f"triplets={tmp_path}/none.jsonl")


def test_invalid_json_names_the_line(fail, tmp_path):
    file = tmp_path / "bad.jsonl"
    file.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a", \n')
    assert "bad.jsonl, line 2" in fail("--datasets", f"triplets={file}")


def test_a_source_without_the_adapters_columns(fail, tmp_path):
    file = tmp_path / "other.jsonl"
    file.write_text(json.dumps({"question": "a", "answer": "b"}))
    message = fail("--datasets", f"triplets={file}")
    assert "Expected by the adapter 'triplets': chosen, rejected" in message and "Found: answer, question" in message


def test_a_tokenizer_without_the_templates_control_tokens(fail):
    message = fail("--template", "llama3")
    assert "<|eot_id|>" in message and "--add_control_tokens" in message


def test_a_template_model_that_the_tokenizer_does_not_have(fail):
    assert "the tokenizer has no chat template" in fail("--template", "model")


def test_a_prompt_bound_above_the_whole_bound(fail):
    message = fail("--max_prompt_length", "300", "--max_length", "200")
    assert "--max_prompt_length 300 is above --max_length 200" in message


def test_nothing_kept_shows_the_table(fail):
    message = fail("--max_length", "3")
    assert "24 too_long" in message and "kept" in message


def test_a_hub_that_cannot_be_reached(fail, monkeypatch):
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    message = fail("--datasets", "nectar")
    assert "berkeley-nest/Nectar" in message and "ADAPTER=path/to/rows.jsonl" in message


def test_a_model_folder_that_is_missing(fail, tmp_path):
    assert "there is no such folder" in fail("--model_name_or_path", str(tmp_path / "none"))


def test_a_folder_with_a_tokenizer_and_no_model(fail, tiny_model, tmp_path):
    folder = tmp_path / "half"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text((tiny_model / name).read_text())
    assert Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert "cannot be loaded" in fail("--model_name_or_path", str(folder))


def test_an_output_dir_that_contains_a_finished_run(fail, tmp_path):
    done = tmp_path / "done"
    done.mkdir()
    (done / "train_results.json").write_text("{}")
    assert "--overwrite_output_dir" in fail("--output_dir", str(done))


@pytest.mark.parametrize("flag", ["output_dir", "reference_cache"])
def test_a_folder_that_cannot_be_made(fail, flag, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert f"{file} is a file, expected a folder or a new path" in fail(f"--{flag}", str(file / "folder"))


@pytest.fixture
def copied(tiny_model, tmp_path):
    """Copy the tiny model and change values of its configuration."""

    def copy(**values: object) -> str:
        folder = shutil.copytree(tiny_model, tmp_path / "copied")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))
        return str(folder)

    return copy


@pytest.mark.parametrize("stage", ["dpo", "sft"])
def test_a_flag_of_the_packed_engine_with_a_model_that_needs_padded(fail, copied, stage):
    flags = ("--stage", stage, "--max_tokens_per_micro_batch", "1000")
    message = fail("--model_name_or_path", copied(attention_dropout=0.1), *flags)
    assert "--max_tokens_per_micro_batch is only read by --engine packed, and this run is padded because" in message
    assert "because the model has attention dropout.\n  Leave it out" in message


@pytest.fixture
def adapter(tiny_model, tmp_path):
    """Save an adapter on the tiny model."""

    def save(**options: Any) -> Path:
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        config = LoraConfig(**{"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"} | options)
        get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter"

    return save


@pytest.mark.parametrize("stage", ["dpo", "sft"])
def test_an_adapter_on_the_head_can_be_merged(fail, adapter, stage):
    message = fail("--model_name_or_path", str(adapter(target_modules=["lm_head"])), "--stage", stage)
    assert "is an adapter that covers the head" in message and "dpo merge" in message


def test_an_adapter_that_the_libraries_refuse_can_be_merged(fail, adapter):
    message = fail("--model_name_or_path", str(adapter(bias="all")), "--reference_cache", "none")
    assert "LlamaForCausalLM cannot be trained with these flags: " in message
    assert "supports only 1 adapter with bias" in message and "dpo merge" in message


def test_an_adapter_without_its_weights(fail, adapter):
    folder = adapter()
    (folder / "adapter_model.safetensors").unlink()
    assert "found neither adapter_model.safetensors nor" in fail("--model_name_or_path", str(folder))


def test_an_adapter_without_its_kind(fail, adapter):
    folder = adapter()
    config = json.loads((folder / "adapter_config.json").read_text())
    del config["peft_type"]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert "'peft_type' is missing from adapter_config.json" in fail("--model_name_or_path", str(folder))


def test_an_adapters_reference_cannot_follow_it(fail, adapter):
    message = fail("--model_name_or_path", str(adapter()), "--sync_ref_model")
    assert "--sync_ref_model moves a reference model" in message


def test_a_loss_of_experts_that_the_model_does_not_have(fail):
    message = fail("--router_aux_loss_coef", "0.01")
    assert "--router_aux_loss_coef 0.01: LlamaForCausalLM has no experts" in message


def test_flash_attention_that_is_not_installed(fail):
    assert "requirements-gpu.txt" in fail("--attn_implementation", "flash_attention_2")


def test_a_missing_config_file(fail, tmp_path):
    assert "cannot be read" in fail("--config", str(tmp_path / "none.yaml"))


def test_the_script_itself_exits_with_2(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "--datasets", "nectarine"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
