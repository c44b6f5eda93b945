"""Short runs give the losses, gradient norms and learning rates that are in tests/golden/losses.json.

The runs under launchers, in test_launch.py and test_launch_stages.py, are compared with the same file.
"""

import json
from pathlib import Path

import pytest

from dpo.training.run import run
from tests.training.golden import FILE, LAUNCHED, METRICS, assert_golden, read_log, write_golden
from tests.training.test_launch import short_run

FLAGS = {
    "max_steps": 4,
    "global_batch_size": 4,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "logging_steps": 1,
    "save_strategy": "no",
}
CASES = {
    "packed dpo": [],
    "packed dpo, micro-batches of 120 tokens": ["--max_tokens_per_micro_batch", "120"],
    "padded dpo": ["--engine", "padded"],
    "packed sft": ["--stage", "sft"],
    "padded sft": ["--stage", "sft", "--engine", "padded"],
    "packed dpo, LoRA": ["--lora_rank", "4"],
}


@pytest.mark.parametrize("name", [*CASES, LAUNCHED])
def test_a_short_run_gives_the_golden_values(
    name: str, tiny_model: Path, rows: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    output_dir = tmp_path / "out"
    flags = short_run(tiny_model, rows, output_dir)
    if name != LAUNCHED:
        flags = ["--datasets", f"triplets={rows}", "--model_name_or_path", str(tiny_model)]
        flags += ["--output_dir", str(output_dir), *CASES[name]]
        flags += [word for flag, value in FLAGS.items() for word in (f"--{flag}", str(value))]
    run([*flags, "--use_cpu"])
    if request.config.getoption("--write-golden"):
        write_golden(name, output_dir)
    assert_golden(name, output_dir)


def test_a_changed_value_is_noticed(tmp_path: Path) -> None:
    golden = json.loads(FILE.read_text())
    assert golden.keys() == {*CASES, LAUNCHED}
    steps = [dict(zip(METRICS, values, strict=True)) for values in zip(*golden["packed dpo"].values(), strict=True)]
    assert len(steps) == 4
    for metric in METRICS:
        changed = [*steps[:2], steps[2] | {metric: steps[2][metric] * 1.0003}, steps[3]]
        (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": [{"eval_loss": 1.0}, *changed]}))
        assert len(read_log(tmp_path)["loss"]) == 4
        with pytest.raises(AssertionError, match=f"{metric} of 'packed dpo'"):
            assert_golden("packed dpo", tmp_path)
