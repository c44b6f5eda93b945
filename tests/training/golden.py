"""Losses, gradient norms and learning rates of short runs, in tests/golden/losses.json.

    python -m pytest -p no:xdist tests/training/test_golden.py --write-golden

writes the file anew, for a change that is meant to change numbers.
"""

import json
from pathlib import Path

import pytest

from tests.builders import ROOT

FILE = ROOT / "tests" / "golden" / "losses.json"
METRICS = ("loss", "grad_norm", "learning_rate")
LAUNCHED = "packed dpo, 3 steps with warm-up"
"""The run of test_launch.short_run, which every launcher and every way to shard must give."""

TOLERANCE = 1e-4
"""Relative. Other CPUs, BLAS libraries and numbers of threads add in another order: with PyTorch's kernels for old CPUs
and one or two threads, and between the launchers, values differ by up to 3e-6. A wrong weight, step or pair changes the
first four digits."""

Log = dict[str, list[float]]


def read_log(output_dir: Path) -> Log:
    """The logged values of each training step, by metric."""
    history = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
    steps = [entry for entry in history if "loss" in entry]
    return {metric: [entry[metric] for entry in steps] for metric in METRICS}


def assert_golden(name: str, output_dir: Path) -> None:
    """Compare the log of a run with the values of that name."""
    golden, found = json.loads(FILE.read_text())[name], read_log(output_dir)
    for metric in METRICS:
        assert found[metric] == pytest.approx(golden[metric], rel=TOLERANCE), f"{metric} of '{name}'"


def write_golden(name: str, output_dir: Path) -> None:
    """Replace the values of that name, rounded to six digits."""
    golden = json.loads(FILE.read_text()) if FILE.exists() else {}
    log = read_log(output_dir)
    golden[name] = {metric: [float(f"{value:.6g}") for value in log[metric]] for metric in METRICS}
    lines = [f"  {json.dumps(key)}: {{\n{metric_lines(golden[key])}\n  }}" for key in sorted(golden)]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def metric_lines(log: Log) -> str:
    return ",\n".join(f"    {json.dumps(metric)}: {json.dumps(log[metric])}" for metric in METRICS)
