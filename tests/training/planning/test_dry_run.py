"""--dry_run: what it prints, and that it writes nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dpo.commands.train import run
from dpo.errors import ConfigError, DPOError
from tests.builders import ROOT

DryRun = Callable[..., str]


@pytest.fixture
def dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> DryRun:
    """Run main.py --dry_run, check that it writes nothing, and return what it printed."""

    def run_main(*flags: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        run([*flags, "--dry_run"])
        assert sorted(tmp_path.rglob("*")) == before
        assert not torch.distributed.is_initialized()
        return capsys.readouterr().out

    return run_main


@pytest.fixture
def flags(tiny_model: Path, rows: Path, tmp_path: Path) -> list[str]:
    return [
        *("--datasets", f"triplets={rows}", "--model_name_or_path", str(tiny_model)),
        *("--output_dir", str(tmp_path / "out"), "--validation_split", "0.25"),
    ]


def write_recipe(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    return ["--config", str(file)]


def test_a_run_is_described_from_its_model_to_its_output(
    dry_run: DryRun, flags: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    printed = dry_run(
        *flags, "--global_batch_size", "8", "--per_device_train_batch_size", "2", "--num_train_epochs", "2"
    )
    assert f"model: {tiny_model}, LlamaForCausalLM with " in printed
    assert "global batch size: 8 pairs = 2 per device x 1 device(s) x 4 accumulation step(s)" in printed
    assert "loss: sigmoid, beta 0.1" in printed
    assert "  24    24  none" in printed, "the data report"
    assert "epoch: about 18 pairs, 3 steps; run: 6 steps" in printed
    assert "memory per device, without DeepSpeed, 1 device(s):" in printed
    assert printed.rstrip().endswith(f"output_dir: {tmp_path / 'out'}")
    assert "stand-in" not in printed


def test_a_step_counts_each_prompt_once_or_twice_without_sharing(
    dry_run: DryRun, tiny_model: Path, tmp_path: Path
) -> None:
    """One pair of 10 + 2 + 3 characters between control tokens, eight times a step."""
    file = tmp_path / "one.jsonl"
    file.write_text(json.dumps({"prompt": "zq", "chosen": "x", "rejected": "yy"}))
    printed = dry_run(
        *("--datasets", f"triplets={file}", "--model_name_or_path", str(tiny_model)),
        *("--output_dir", str(tmp_path / "out"), "--global_batch_size", "8"),
    )
    (line,) = [line for line in printed.splitlines() if line.startswith("whole")]
    lengths = {
        row.split()[0]: int(row.split()[-1])
        for row in printed.splitlines()
        if row.startswith(("prompt", "chosen", "rejected"))
    }
    assert (lengths["chosen"], lengths["rejected"]) == (2, 3)
    shared = 8 * (lengths["prompt"] + 5)
    unshared = shared + 8 * lengths["prompt"]
    assert f"optimizer step: about {shared:,} tokens with shared prompts, {unshared:,} without sharing" in printed
    assert int(line.split()[-1]) == lengths["prompt"] + 3


def test_a_plan_for_devices_that_this_machine_does_not_have(dry_run: DryRun, flags: list[str]) -> None:
    zero = str(ROOT / "ds_configs/zero3.json")
    printed = dry_run(*flags, "--num_devices", "4", "--deepspeed", zero, "--bf16", "--global_batch_size", "16")
    assert "16 pairs = 4 per device x 4 device(s) x 1 accumulation step(s)" in printed
    assert "bfloat16 weights, bfloat16 compute" in printed and "ZeRO stage: 3" in printed
    assert "memory per device, with ZeRO-3, 4 device(s):" in printed
    assert "= 12 bytes x" in printed and "/ 4 devices" in printed


def test_a_launcher_s_number_of_devices_is_used_and_its_other_ranks_print_nothing(
    dry_run: DryRun, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "x 2 device(s) x" in dry_run(*flags)
    monkeypatch.setenv("RANK", "1")
    assert dry_run(*flags) == ""


def test_a_token_limit_gives_more_micro_batches(dry_run: DryRun, flags: list[str]) -> None:
    few = dry_run(*flags, "--global_batch_size", "8", "--per_device_train_batch_size", "8")
    assert "micro-batches per step: 1 on each of 1 device(s)" in few
    more = dry_run(
        *flags, "--global_batch_size", "8", "--per_device_train_batch_size", "8", "--max_tokens_per_micro_batch", "300"
    )
    assert "micro-batches per step:" in more and "micro-batches per step: 1 on each" not in more
    with pytest.raises(ConfigError, match="a pair of the sample has"):
        run([*flags, "--dry_run", "--max_tokens_per_micro_batch", "5"])


def test_flags_that_compare_pairs_are_listed_as_not_applied(dry_run: DryRun, flags: list[str]) -> None:
    printed = dry_run(*flags, "--drop_duplicates", "exact", "--max_pairs_per_prompt", "3")
    assert "not applied here, because all rows are needed: --drop_duplicates, --max_pairs_per_prompt" in printed


def test_a_sample_of_which_nothing_is_kept_is_a_warning(dry_run: DryRun, flags: list[str]) -> None:
    assert "warning: none of these rows is kept" in dry_run(*flags, "--max_length", "3")


def test_a_finished_run_is_not_replaced(dry_run: DryRun, flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train_results.json").write_text("{}")
    assert f"output_dir: {tmp_path / 'out'} already contains a finished run" in dry_run(*flags)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--beta", "-1"], "--beta -1.0: expected a number above 0"),
        (["--global_batch_size", "3", "--num_devices", "2"], "--global_batch_size 3 does not match 2 device(s)"),
        (["--num_devices", "0"], "--num_devices 0: expected at least 1, together with --dry_run"),
        (["--datasets", "nectarine"], "unknown adapter 'nectarine'"),
        (["--template", "llama3"], "--add_control_tokens"),
        (["--deepspeed", "none.json"], "cannot be read"),
        (["--lora_rank", "4", "--lora_target_modules", "lm_head"], "the head cannot have an adapter"),
        (["--lora_rank", "4", "--template", "llama3", "--add_control_tokens"], "an adapter does not train"),
    ],
)
def test_a_mistake_that_would_stop_the_run_stops_the_dry_run(flags: list[str], more: list[str], message: str) -> None:
    with pytest.raises(DPOError) as caught:
        run([*flags, "--dry_run", *more])
    assert message in str(caught.value)


def test_a_new_adapter_on_an_adapter_is_refused(flags: list[str], tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_model)}))
    with pytest.raises(ConfigError, match=r"--lora_rank 4: .* is already an adapter"):
        run([*flags, "--dry_run", "--model_name_or_path", str(tmp_path / "adapter"), "--lora_rank", "4"])


def test_num_devices_needs_a_dry_run(flags: list[str]) -> None:
    with pytest.raises(ConfigError, match="expected at least 1, together with --dry_run"):
        run([*flags, "--num_devices", "2"])


class TestRecipes:
    def test_all_stages_are_described_in_order_each_from_the_model_of_the_one_before(
        self, dry_run: DryRun, tiny_model: Path, rows: Path, tmp_path: Path
    ) -> None:
        recipe = write_recipe(
            tmp_path,
            f"model_name_or_path: {tiny_model}\ndatasets: ['triplets={rows}']\nstages:\n"
            f"  - dpo: {{output_dir: {tmp_path}/one}}\n"
            f"  - merge: {{model: {tiny_model}, adapter: {tmp_path}/one, output: {tmp_path}/merged}}\n"
            f"  - dpo: {{name: again, model_name_or_path: {tmp_path}/merged, output_dir: {tmp_path}/two}}\n",
        )
        printed = dry_run(*recipe)
        stages = [line for line in printed.splitlines() if line.startswith("== ")]
        assert stages == [
            f"== {name}: stage {number} of 3 in {tmp_path}/recipe.yaml"
            for number, name in enumerate(("dpo", "merge", "again"), 1)
        ]
        assert "would run: dpo merge --model" in printed
        assert printed.count("stand-in") == 1
        stand_in = (
            f"{tmp_path}/merged does not exist yet; the plan uses the configuration and tokenizer of {tiny_model}"
        )
        assert f"stand-in: {stand_in}" in printed
        assert printed.count("  24    24  none") == 4, "two stages, each with its source and the total"
        only = dry_run(*recipe, "--stage", "again")
        assert only.count("== ") == 1 and "stage 3 of 3" in only

    def test_training_continues_an_adapter_of_an_earlier_stage_until_it_is_merged(
        self, dry_run: DryRun, tiny_model: Path, rows: Path, tmp_path: Path
    ) -> None:
        recipe = write_recipe(
            tmp_path,
            f"model_name_or_path: {tiny_model}\ndatasets: ['triplets={rows}']\nstages:\n"
            f"  - sft: {{output_dir: {tmp_path}/sft, lora_rank: 4}}\n"
            f"  - dpo: {{output_dir: {tmp_path}/one, model_name_or_path: {tmp_path}/sft}}\n"
            f"  - dpo: {{name: more, output_dir: {tmp_path}/two, model_name_or_path: {tmp_path}/one}}\n"
            f"  - merge: {{adapter: {tmp_path}/two, output: {tmp_path}/merged}}\n"
            f"  - dpo: {{name: whole, output_dir: {tmp_path}/three, model_name_or_path: {tmp_path}/merged}}\n",
        )
        sft, dpo, more, merge, whole = dry_run(*recipe).split("\n== ")[1:]
        (trained,) = [line for line in sft.splitlines() if line.startswith("  optimizer")]
        assert "learning rate: 0.0002" in sft and "training an adapter with" in sft
        for stage in (dpo, more):
            assert "learning rate: 1e-05" in stage and trained in stage
            assert f"configuration and tokenizer of {tiny_model}" in stage
        assert merge.startswith("merge")
        assert "learning rate: 1e-06" in whole and "training an adapter" not in whole and trained not in whole

    def test_a_new_adapter_on_one_of_an_earlier_stage_is_refused(
        self, tiny_model: Path, rows: Path, tmp_path: Path
    ) -> None:
        recipe = write_recipe(
            tmp_path,
            f"model_name_or_path: {tiny_model}\ndatasets: ['triplets={rows}']\nlora_rank: 4\nstages:\n"
            f"  - sft: {{output_dir: {tmp_path}/sft}}\n"
            f"  - dpo: {{output_dir: {tmp_path}/dpo, model_name_or_path: {tmp_path}/sft}}\n",
        )
        with pytest.raises(ConfigError, match=f"--lora_rank 4: {tmp_path}/sft is already an adapter"):
            run([*recipe, "--dry_run"])

    def test_an_adapter_can_use_control_tokens_that_an_earlier_stage_adds(
        self, dry_run: DryRun, tiny_model: Path, rows: Path, tmp_path: Path
    ) -> None:
        recipe = write_recipe(
            tmp_path,
            f"model_name_or_path: {tiny_model}\ndatasets: ['triplets={rows}']\ntemplate: llama3\n"
            "add_control_tokens: true\nstages:\n"
            f"  - sft: {{output_dir: {tmp_path}/sft}}\n"
            f"  - dpo: {{output_dir: {tmp_path}/dpo, model_name_or_path: {tmp_path}/sft, lora_rank: 4}}\n",
        )
        assert "training an adapter with" in dry_run(*recipe)

    def test_the_command_line_overrides_every_stage(
        self, dry_run: DryRun, tiny_model: Path, rows: Path, tmp_path: Path
    ) -> None:
        recipe = write_recipe(
            tmp_path,
            f"model_name_or_path: {tiny_model}\ndatasets: ['triplets={rows}']\nbeta: 0.3\nstages:\n"
            f"  - dpo: {{output_dir: {tmp_path}/one}}\n  - dpo: {{name: b, output_dir: {tmp_path}/two, beta: 0.4}}\n",
        )
        assert dry_run(*recipe, "--beta", "0.7").count("beta 0.7") == 2

    def test_a_model_that_cannot_be_downloaded_has_a_stand_in(
        self, dry_run: DryRun, rows: Path, tmp_path: Path
    ) -> None:
        printed = dry_run(
            *("--datasets", f"triplets={rows}", "--model_name_or_path", "org/model"),
            *("--output_dir", str(tmp_path / "out"), "--template", "model"),
        )
        assert "stand-in: org/model cannot be downloaded; four characters count as one token" in printed
        assert "memory per device" not in printed
        assert "optimizer step: about" in printed

    def test_a_folder_that_no_stage_makes_is_an_error(self, rows: Path, tmp_path: Path) -> None:
        with pytest.raises(DPOError, match="there is no such folder"):
            run(
                [
                    *("--datasets", f"triplets={rows}", "--model_name_or_path", str(tmp_path / "none")),
                    *("--output_dir", str(tmp_path / "out"), "--dry_run"),
                ]
            )
