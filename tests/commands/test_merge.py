"""`dpo merge`: what it prints, writes and refuses."""

import json
from pathlib import Path

import pytest

from dpo.cli import main
from tests.merging.conftest import make_adapter, make_base  # noqa: F401  # fixtures


@pytest.fixture
def run(make_base, make_adapter, tmp_path: Path):  # noqa: F811
    """Runs the command on an adapter, and returns its exit code and the output folder."""
    adapter = make_adapter(make_base())

    def call(*flags: str) -> tuple[int, Path]:
        return main(
            ["merge", "--adapter", str(adapter), "--output", str(tmp_path / "merged"), *flags]
        ), tmp_path / "merged"

    return call


def test_it_prints_what_was_merged_and_saves_the_report(run, tmp_path: Path, capsys) -> None:
    code, output = run()
    assert code == 0
    shown = capsys.readouterr().out
    assert f"14 layers merged: adapter {tmp_path / 'adapter'} into base {tmp_path / 'base'}" in shown  # 2 x (4 + 3)
    assert "1 shard of float32" in shown
    assert "at most 1.0e-04 is allowed" in shown
    assert "GiB with the check" in shown
    report = json.loads((output / "merge_report.json").read_text())
    assert report["num_layers"] == 14
    assert report["comparison"]["difference"] < 1e-4
    assert "with the adapter" in (output / "README.md").read_text()


def test_half_precision_is_named_in_the_check(run, capsys) -> None:
    assert run("--dtype", "bfloat16")[0] == 0
    assert "from those of the base with the adapter in bfloat16 by" in capsys.readouterr().out


def test_a_second_merge_needs_overwrite(run, capsys) -> None:
    assert run("--check_prompts", "0")[0] == 0
    assert run("--check_prompts", "0")[0] == 2
    assert "pass --overwrite" in capsys.readouterr().err
    code, output = run("--check_prompts", "0", "--overwrite", "--dtype", "bfloat16")
    assert code == 0
    assert json.loads((output / "merge_report.json").read_text())["dtype"] == "bfloat16"


def test_another_base_is_refused_before_anything_is_written(run, tmp_path: Path, capsys) -> None:
    (tmp_path / "other").mkdir()
    code, output = run("--model", str(tmp_path / "other"))
    assert code == 2
    assert "--other_base" in capsys.readouterr().err
    assert not output.exists()
