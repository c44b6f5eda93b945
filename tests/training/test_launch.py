"""Whole runs of main.py under each launcher, on a tiny model."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, FalconConfig, FalconForCausalLM

from dpo.cli import main as cli
from tests.builders import ROOT
from tests.conftest import Launch
from tests.training.golden import LAUNCHED, assert_golden

LOG_2 = 0.6931
LAUNCHERS = {
    "python": (["python"], 1),
    "torchrun": (["torchrun", "--nproc_per_node", "2", "--master_port", "29611"], 2),
    # On a CPU, accelerate can start several processes only through MPI, which the tests do not require.
    "accelerate": (["accelerate", "launch", "--cpu", "--num_processes", "1"], 1),
}
"""The command of each launcher, and the number of processes that it starts."""


def short_run(model: Path, rows: Path, output_dir: Path) -> list[str]:
    flags = {
        "datasets": f"triplets={rows}",
        "model_name_or_path": model,
        "output_dir": output_dir,
        "validation_split": 0.25,
        "max_steps": 3,
        "global_batch_size": 4,
        "per_device_train_batch_size": 1,
        "logging_steps": 1,
        "learning_rate": 1e-3,
        "save_strategy": "no",
        "sample_prompts": 1,
        "sample_max_new_tokens": 4,
    }
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def logged(output_dir: Path, name: str) -> list[float]:
    log = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
    return [entry[name] for entry in log if name in entry]


def train_losses(output_dir: Path) -> list[float]:
    return logged(output_dir, "loss")


def assert_whole(output_dir: Path, start: Path) -> None:
    """output_dir contains a changed model that loads, its tokenizer with the template, and every report."""
    model = AutoModelForCausalLM.from_pretrained(output_dir)
    before = AutoModelForCausalLM.from_pretrained(start).state_dict()
    after = model.state_dict()
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(changed) == len(before)
    assert_weights_file(output_dir / "model.safetensors", tied=model.config.tie_word_embeddings)
    card = (output_dir / "README.md").read_text()
    assert "| learning rate | 0.001 |" in card and "| steps | 3 |" in card and "24    24  none" in card
    assert f'model="{output_dir}"' in card and "None" not in card
    tokenizer = AutoTokenizer.from_pretrained(output_dir)
    assert model.config.pad_token_id == model.generation_config.pad_token_id == tokenizer.pad_token_id
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )
    assert rendered == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in torch.tensor(model.generation_config.eos_token_id).flatten()
    report = json.loads((output_dir / "data_report.json").read_text())
    assert report["total"]["rows"] == report["total"]["kept"] == sum(report["pairs"].values()) == 24
    manifest = json.loads((output_dir / "manifest.json").read_text())
    assert manifest["config"]["max_length"] == 2048 and manifest["end_of_turn"] == "<|im_end|>"
    results = json.loads((output_dir / "train_results.json").read_text())
    assert results["train_runtime"] > 0 and results["train_samples_per_second"] > 0
    assert results["peak_memory_gib"] > 0.1
    if results["engine"] == "packed":
        assert results["pairs"] == 12 and results["tokens"] < results["tokens_unshared"]
        assert results["reference_runtime"] >= 0
        assert results["train_loss"] == pytest.approx(sum(train_losses(output_dir)) / 3, abs=1e-4)
    assert logged(output_dir, "learning_rate") == pytest.approx([0, 1e-3, 5e-4]), "warm-up, and down to 0"
    evaluations = json.loads((output_dir / "eval_results.json").read_text())
    assert evaluations["before"]["eval_loss"] == pytest.approx(LOG_2, abs=1e-4)
    assert evaluations["after"]["step"] == 3
    assert len(json.loads((output_dir / "sample_answers.json").read_text())) == 1
    assert (output_dir / "resolved_config.yaml").exists()


def assert_weights_file(file: Path, *, tied: bool) -> None:
    """A tied head is saved once, as the embedding, and the file has the same permissions as the others."""
    with safe_open(file, "pt") as weights:
        assert ("lm_head.weight" in set(weights.keys())) is not tied
    assert file.stat().st_mode == (file.parent / "config.json").stat().st_mode


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_run_ends_with_a_complete_output_dir(launcher, launch: Launch, tiny_model, rows, tmp_path):
    output_dir = tmp_path / "out"
    command, world_size = LAUNCHERS[launcher]
    done = launch(command, *short_run(tiny_model, rows, output_dir))
    assert done.returncode == 0, done.stderr[-3000:]
    assert_whole(output_dir, tiny_model)
    assert_golden(LAUNCHED, output_dir)
    assert train_losses(output_dir)[0] == pytest.approx(LOG_2, abs=1e-4)
    assert "24    24  none" in done.stdout
    assert "loss: sigmoid, beta 0.1\n" in done.stdout
    assert "margins are 0 up to rounding" in done.stdout
    assert (
        f"global batch size: 4 pairs = 1 per device x {world_size} device(s) x {4 // world_size} accumulation"
        in done.stdout
    )
    assert not (tmp_path / "wandb").exists(), "Weights & Biases is off if no project is set"


MODULES = {
    "python": (["python", "-m"], 1),
    "torchrun": (["torchrun", "--nproc_per_node", "2", "--master_port", "29641", "-m"], 2),
    "accelerate": (["accelerate", "launch", "--cpu", "--num_processes", "1", "-m"], 1),
    "deepspeed": (["deepspeed", "--num_gpus", "2", "--master_port", "29642", "--module"], 2),
}
"""As LAUNCHERS, for the package in place of main.py."""


@pytest.mark.parametrize("launcher", MODULES)
def test_the_package_trains_under_every_launcher(launcher, launch: Launch, tiny_model, rows, tmp_path):
    command, world_size = MODULES[launcher]
    flags = [*short_run(tiny_model, rows, tmp_path / "out"), "--max_steps", "1", "--sample_prompts", "0"]
    done = launch([*command, "dpo", "train"], *flags, script=None, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"global batch size: 4 pairs = 1 per device x {world_size} device(s)" in done.stdout
    assert train_losses(tmp_path / "out") == pytest.approx([LOG_2], abs=1e-4)


def test_swapping_the_json_changes_the_zero_stage_and_not_the_losses(launch: Launch, tiny_model, rows, tmp_path):
    losses = {}
    for stage in (1, 2, 3):
        output_dir = tmp_path / f"zero{stage}"
        done = launch(
            ["deepspeed", "--num_gpus", "2", "--master_port", "29613"],
            *short_run(tiny_model, rows, output_dir),
            *("--deepspeed", str(ROOT / f"ds_configs/zero{stage}.json")),
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert f"ZeRO stage: {stage}" in done.stdout
        assert_whole(output_dir, tiny_model)
        assert_golden(LAUNCHED, output_dir)
        losses[stage] = train_losses(output_dir)
    assert losses[1][0] == pytest.approx(LOG_2, abs=1e-4)
    assert losses[1][2] < LOG_2 - 1e-3, "three steps at this rate must move the loss"
    assert losses[2] == pytest.approx(losses[1], abs=1e-3)
    assert losses[3] == pytest.approx(losses[1], abs=1e-3)


def test_both_engines_give_the_same_losses_on_two_ranks(launch: Launch, tiny_model, rows, tmp_path):
    """The head is not tied, because ZeRO-3 collects the gradient of an untied head in another way.

    Padded runs with ZeRO-2, because TRL 1.16 fails on such a head with ZeRO-3 ("Cannot partition a param in flight").
    Packed recomputes whole layers in the backward pass with ZeRO-2, and only cheap parts with ZeRO-3.
    """
    untied = tmp_path / "untied"
    shutil.copytree(tiny_model, untied)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, tie_word_embeddings=False)
    model.config.tie_word_embeddings = False
    model.save_pretrained(untied)
    runs = {}
    for engine, stage, checkpointing in (("packed", 2, "true"), ("packed", 3, "false"), ("padded", 2, "true")):
        output_dir = tmp_path / f"{engine}{stage}"
        done = launch(
            ["deepspeed", "--num_gpus", "2", "--master_port", "29615"],
            *short_run(untied, rows, output_dir),
            *("--engine", engine, "--per_device_eval_batch_size", "3", "--gradient_checkpointing", checkpointing),
            *("--deepspeed", str(ROOT / f"ds_configs/zero{stage}.json")),
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert_whole(output_dir, untied)
        log = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
        runs[engine, stage] = train_losses(output_dir), [entry["grad_norm"] for entry in log if "grad_norm" in entry]
    losses, norms = runs["padded", 2]
    for stage in (2, 3):
        assert runs["packed", stage][0] == pytest.approx(losses, rel=1e-4)
        assert runs["packed", stage][1] == pytest.approx(norms, rel=1e-3)
    assert not torch.equal(model.lm_head.weight, AutoModelForCausalLM.from_pretrained(output_dir).lm_head.weight)


def test_an_unsupported_architecture_uses_padded_and_prints_the_reason_once(launch: Launch, tiny_model, rows, tmp_path):
    falcon = tmp_path / "falcon"
    shutil.copytree(tiny_model, falcon)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    vocabulary = AutoModelForCausalLM.from_pretrained(tiny_model).config.vocab_size
    FalconForCausalLM(FalconConfig(vocab_size=vocabulary, **sizes)).save_pretrained(falcon)
    done = launch(["python"], *short_run(falcon, rows, tmp_path / "out"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert (
        done.stdout.count("engine: padded, because FalconForCausalLM does not use transformers' attention interface")
        == 1
    )
    assert json.loads((tmp_path / "out" / "train_results.json").read_text())["engine"] == "padded"
    refused = launch(["python"], *short_run(falcon, rows, tmp_path / "other"), "--loss", "simpo")
    assert refused.returncode == 2
    assert "--loss simpo is computed by --engine packed alone, and this run is padded because Falcon" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_one_rank_and_two_give_the_same_losses(launch: Launch, tiny_model, rows, tmp_path):
    losses = []
    for launcher in ("python", "torchrun"):
        output_dir = tmp_path / launcher
        flags = [*short_run(tiny_model, rows, output_dir), "--max_tokens_per_micro_batch", "120"]
        done = launch(LAUNCHERS[launcher][0], *flags)
        assert done.returncode == 0, done.stderr[-3000:]
        losses.append(train_losses(output_dir))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][2] < LOG_2 - 1e-3


def test_python_without_a_launcher_accepts_a_deepspeed_json(launch: Launch, tiny_model, rows, tmp_path):
    done = launch(
        ["python"],
        *short_run(tiny_model, rows, tmp_path / "out"),
        *("--deepspeed", str(ROOT / "ds_configs/zero3.json")),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert_whole(tmp_path / "out", tiny_model)


def test_a_run_on_prepared_data_equals_the_run_on_its_sources(launch: Launch, tiny_model, rows, tmp_path):
    sources = short_run(tiny_model, rows, tmp_path / "from sources")
    data_flags = ["--datasets", f"triplets={rows}", "--validation_split", "0.25"]
    prepare = ["prepare", *data_flags, "--model_name_or_path", str(tiny_model), "--output", str(tmp_path / "prepared")]
    assert cli(prepare) == 0
    prepared = [word for word in short_run(tiny_model, rows, tmp_path / "from prepared") if word not in data_flags]
    for flags in (sources, [*prepared, "--prepared", str(tmp_path / "prepared")]):
        done = launch(["python"], *flags)
        assert done.returncode == 0, done.stderr[-3000:]
    assert train_losses(tmp_path / "from prepared") == train_losses(tmp_path / "from sources")
    resolved = yaml.safe_load((tmp_path / "from prepared" / "resolved_config.yaml").read_text())
    assert resolved["prepared"] == str(tmp_path / "prepared")
    assert not {"datasets", "template", "max_length"} & resolved.keys(), (
        "flags that the preparation decided are not repeated"
    )
    assert_whole(tmp_path / "from prepared", tiny_model)


def test_the_deepspeed_launcher_passes_on_a_user_error_once_with_exit_code_2(launch: Launch, tiny_model, tmp_path):
    done = launch(
        ["deepspeed", "--num_gpus", "2", "--master_port", "29614"],
        *short_run(tiny_model, tmp_path / "missing.jsonl", tmp_path / "out"),
    )
    assert done.returncode == 2
    assert done.stderr.count("there is no file or folder") == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_scheduler_that_contradicts_the_number_of_steps_is_a_user_error(launch: Launch, tiny_model, rows, tmp_path):
    """The contradiction shows only when the steps are counted, after the models are loaded."""
    config = json.loads((ROOT / "ds_configs/zero1.json").read_text())
    config["scheduler"] = {"type": "WarmupDecayLR", "params": {"total_num_steps": 77}}
    file = tmp_path / "scheduled.json"
    file.write_text(json.dumps(config))
    done = launch(["python"], *short_run(tiny_model, rows, tmp_path / "out"), "--deepspeed", str(file))
    assert done.returncode == 2, done.stderr[-3000:]
    assert f"--deepspeed {file} contradicts the flags" in done.stderr and "total_num_steps" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_whose_only_step_has_rate_0_warns_that_the_model_is_unchanged(launch: Launch, tiny_model, rows, tmp_path):
    done = launch(["python"], *short_run(tiny_model, rows, tmp_path / "out"), "--max_steps", "1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "warning: the model is unchanged" in done.stdout


def read_wandb(file: Path) -> list[Any]:
    """Read the records of an offline run file: a header of 7 bytes, then LevelDB's log format in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    content = file.read_bytes()
    assert content[:4] == b":W&B"
    records, parts, place = [], b"", 7
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left  # too short for another record header: zeros fill the block
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            records.append(record)
            parts = b""
    return records


def test_weights_and_biases_is_on_when_its_project_is_set(launch: Launch, tiny_model, rows, tmp_path):
    flags = short_run(tiny_model, rows, tmp_path / "out")
    done = launch(["python"], *flags, WANDB_PROJECT="preferences")
    assert done.returncode == 0, done.stderr[-3000:]
    (run_file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    records = read_wandb(run_file)
    assert "preferences" in {record.run.project for record in records}
    logged = [
        {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item} for record in records
    ]
    losses = [float(entry["train/loss"]) for entry in logged if "train/loss" in entry]
    assert losses == pytest.approx(train_losses(tmp_path / "out"))
    names = {name for entry in logged for name in entry}
    assert {"train/rewards/margins", "eval/rewards/accuracies", "eval/loss"} <= names


def test_a_run_resumed_from_its_checkpoint_ends_like_one_that_was_not_interrupted(
    launch: Launch, tiny_model, rows, tmp_path
):
    flags = short_run(tiny_model, rows, tmp_path / "out")
    flags += ["--save_strategy", "steps", "--save_steps", "2"]
    whole = launch(["python"], *flags)
    assert whole.returncode == 0, whole.stderr[-3000:]
    expected = train_losses(tmp_path / "out")
    checkpoint = tmp_path / "out" / "checkpoint-2"
    resumed = launch(
        ["python"], *flags, "--output_dir", str(tmp_path / "again"), "--resume_from_checkpoint", str(checkpoint)
    )
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert train_losses(tmp_path / "again") == pytest.approx(expected, abs=1e-5)
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    for changed, message in (
        (["--validation_split", "0.5"], "rows: 18 of hash"),
        (
            ["--max_steps", "2"],
            "is at step 2, and with --max_steps 2 this run ends at step 2: nothing is left to train",
        ),
    ):
        again = ["--overwrite_output_dir", "--resume_from_checkpoint", str(checkpoint)]
        refused = launch(["python"], *flags, *changed, *again)
        assert refused.returncode == 2, refused.stderr[-3000:]
        assert message in refused.stderr and "Traceback" not in refused.stderr
        assert (tmp_path / "out" / "model.safetensors").read_bytes() == before, "the finished model is not changed"
