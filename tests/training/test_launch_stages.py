"""Stages, adapters and FSDP under the launchers, on a tiny model."""

import json
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.builders import ROOT
from tests.conftest import Launch
from tests.training.golden import LAUNCHED, assert_golden
from tests.training.test_launch import LOG_2, short_run, train_losses

TELL_SHARDS = Path(__file__).parent / "tell_shards.py"
TWO_RANKS = ["deepspeed", "--num_gpus", "2", "--master_port", "29617"]


def zero(stage: int) -> tuple[str, str]:
    return "--deepspeed", str(ROOT / f"ds_configs/zero{stage}.json")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()


def assert_close(one: Path, other: Path) -> None:
    expected = weights(other)
    for name, found in weights(one).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-3, atol=1e-3)


def launch_fsdp(launch: Launch, *flags: str) -> None:
    """Run with FSDP on two CPU ranks, and check that the model was sharded and that the run printed it."""
    command = ["accelerate", "launch", "--config_file", str(ROOT / "ds_configs/fsdp2.yaml"), "--num_processes", "2"]
    done = launch([*command, "--main_process_port", "29618"], *flags, script=TELL_SHARDS, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "device: cpu:0; FSDP" in done.stdout
    (counts,) = set(re.findall(r"sharded: (\d+) of (\d+) parameters", done.stdout))
    assert counts[0] == counts[1] != "0"


def test_fsdp2_gives_the_same_model_as_zero3(launch: Launch, tiny_model, rows, tmp_path):
    zero3, fsdp = tmp_path / "zero3", tmp_path / "fsdp"
    done = launch(TWO_RANKS, *short_run(tiny_model, rows, zero3), *zero(3))
    assert done.returncode == 0, done.stderr[-3000:]
    launch_fsdp(launch, *short_run(tiny_model, rows, fsdp))
    for output_dir in (zero3, fsdp):
        assert_golden(LAUNCHED, output_dir)
    assert train_losses(fsdp) == pytest.approx(train_losses(zero3), rel=1e-3)
    assert train_losses(fsdp)[2] < LOG_2 - 1e-3
    assert_close(fsdp, zero3)


@pytest.mark.parametrize("flags", [("--stage", "sft"), ("--lora_rank", "4")], ids=["sft", "lora"])
def test_fsdp2_trains_like_one_process(flags, launch: Launch, tiny_model, rows, tmp_path):
    one, fsdp = tmp_path / "one", tmp_path / "fsdp"
    flags = (*flags, "--learning_rate", "1e-2", "--gradient_checkpointing", "false")
    done = launch(["python"], *short_run(tiny_model, rows, one), *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    launch_fsdp(launch, *short_run(tiny_model, rows, fsdp), *flags)
    assert train_losses(fsdp) == pytest.approx(train_losses(one), rel=1e-3)
    assert train_losses(fsdp)[2] < train_losses(fsdp)[0] - 1e-3


def test_dpo_continues_from_the_output_dir_of_sft(launch: Launch, tiny_model, rows, tmp_path):
    sft, dpo = tmp_path / "sft", tmp_path / "dpo"
    fast = ["--learning_rate", "1e-2"]
    done = launch(TWO_RANKS, *short_run(tiny_model, rows, sft), "--stage", "sft", *fast, *zero(3))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "global batch size: 4 answers" in done.stdout and "perplexity" in done.stdout
    results = json.loads((sft / "train_results.json").read_text())
    assert results["answers"] == 12 and results["tokens"] == results["tokens_unshared"]
    evaluations = json.loads((sft / "eval_results.json").read_text())
    assert evaluations["after"]["eval_loss"] < evaluations["before"]["eval_loss"] - 0.05, "it learns"
    assert "fine-tuned on answers" in (sft / "README.md").read_text()
    done = launch(["python"], *short_run(sft, rows, dpo))
    assert done.returncode == 0, done.stderr[-3000:]
    assert train_losses(dpo)[0] == pytest.approx(LOG_2, abs=1e-4)


def test_sft_does_not_depend_on_the_number_of_ranks(launch: Launch, tiny_model, rows, tmp_path):
    losses = []
    for name, launcher in (("one", ["python"]), ("two", TWO_RANKS)):
        more = zero(2) if name == "two" else ()
        done = launch(launcher, *short_run(tiny_model, rows, tmp_path / name), "--stage", "sft", *more)
        assert done.returncode == 0, done.stderr[-3000:]
        losses.append(train_losses(tmp_path / name))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_an_adapter_trains_alike_at_every_zero_stage_and_can_be_trained_further(
    launch: Launch, tiny_model, rows, tmp_path
):
    lora = ["--lora_rank", "4", "--learning_rate", "1e-2"]
    losses = {}
    for stage in (0, 2, 3):
        output_dir = tmp_path / f"lora{stage}"
        more = zero(stage) if stage else ()
        done = launch(TWO_RANKS if stage else ["python"], *short_run(tiny_model, rows, output_dir), *lora, *more)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "adapter: LoRA, rank 4, alpha 8 (alpha / rank), on all linear layers" in done.stdout
        assert f"reference: {tiny_model}, the model without the adapter" in done.stdout
        losses[stage] = train_losses(output_dir)
    assert losses[0][2] < LOG_2 - 1e-3
    assert losses[2] == pytest.approx(losses[0], rel=1e-3)
    assert losses[3] == pytest.approx(losses[0], rel=1e-3)

    refused = launch(["python"], *short_run(output_dir, rows, tmp_path / "no"), *lora)
    assert refused.returncode == 2 and "is already an adapter" in refused.stderr
    on = tmp_path / "on"
    done = launch(["python"], *short_run(output_dir, rows, on))
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"reference: the adapter {output_dir} as it is now" in done.stdout
    assert train_losses(on)[0] == pytest.approx(LOG_2, abs=1e-4)
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), on)
