"""`dpo recipe` on a tiny model, from the first stage to the last."""

import json
from pathlib import Path

import pytest

from dpo.cli import main


def test_stages_run_one_after_the_other_and_finished_ones_are_skipped(
    tiny_model: Path, rows: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"""
model_name_or_path: {tiny_model}
datasets: ['triplets={rows}']
max_steps: 2
global_batch_size: 4
logging_steps: 1
save_strategy: "no"
stages:
  - dpo: {{learning_rate: 1.0e-3, output_dir: {tmp_path}/one}}
  - dpo: {{name: again, model_name_or_path: {tmp_path}/one, beta: 0.25, output_dir: {tmp_path}/two}}
"""
    )
    assert main(["recipe", str(file)]) == 0
    said = capfd.readouterr().out
    assert said.index("[1/2] dpo: ") < said.index(f"model:   {tmp_path}/one") < said.index("[2/2] again: ")
    resolved = (tmp_path / "two" / "resolved_config.yaml").read_text()
    assert f"model_name_or_path: {tmp_path}/one" in resolved and "beta: 0.25" in resolved
    assert json.loads((tmp_path / "two" / "train_results.json").read_text())["pairs"] == 8

    assert main(["recipe", str(file)]) == 0
    said = capfd.readouterr().out
    for name, folder in (("dpo", "one"), ("again", "two")):
        done = tmp_path / folder / "train_results.json"
        assert f"{name}: skipped, because {done} exists (--overwrite runs the stage again)" in said


def test_sft_merge_dpo_and_evaluate_run_in_one_recipe(
    tiny_model: Path, rows: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"""
model_name_or_path: {tiny_model}
datasets: ['triplets={rows}']
lora_rank: 4
learning_rate: 1.0e-2
warmup_steps: 0
max_steps: 6
global_batch_size: 8
validation_split: 0.25
eval_strategy: epoch
save_strategy: "no"
stages:
  - sft: {{output_dir: {tmp_path}/sft}}
  - merge: {{adapter: {tmp_path}/sft, output: {tmp_path}/sft_whole}}
  - dpo: {{model_name_or_path: {tmp_path}/sft_whole, beta: 0.5, output_dir: {tmp_path}/dpo}}
  - evaluate:
      models: ['{tmp_path}/sft_whole', '{tmp_path}/dpo']
      pairs: ['triplets={rows}']
      reference: {tmp_path}/sft_whole
      output: {tmp_path}/evaluation.json
"""
    )
    assert main(["recipe", str(file)]) == 0, capfd.readouterr().err[-3000:]
    before, after = (
        json.loads((tmp_path / "sft" / "eval_results.json").read_text())[when]["eval_loss"]
        for when in ("before", "after")
    )
    assert after < before - 0.1, "SFT learns"
    assert (tmp_path / "dpo" / "adapter_model.safetensors").exists()
    found = json.loads((tmp_path / "evaluation.json").read_text())["models"]
    accuracy = {Path(model).name: results["measures"]["pairs, reward accuracy"] for model, results in found.items()}
    assert accuracy["sft_whole"]["value"] == 0, "the reference itself: every reward is 0"
    assert accuracy["dpo"]["value"] > 0.9 and accuracy["dpo"]["num_items"] == 24
