"""Tests of the import contracts, and of which commands load no heavy library."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import ROOT, SAMPLES

HEAVY = ("torch", "transformers", "deepspeed", "trl", "accelerate", "lm_eval")
REPORT = f"\nimport sys\nprint('loaded:', [name for name in {HEAVY} if name in sys.modules])"


def run_python(code: str, *, argv: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *argv],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def as_command(*words: str) -> str:
    """Return code that runs `python -m dpo WORDS` and then prints which heavy libraries are loaded."""
    return (
        f"import sys, runpy\nsys.argv = {['dpo', *words]}\n"
        "try:\n    runpy.run_module('dpo', run_name='__main__')\nexcept SystemExit as left:\n    assert not left.code\n"
        + REPORT
    )


@pytest.mark.parametrize(
    "code",
    [
        "import dpo, dpo.adapters, dpo.cli, dpo.data.pipeline, dpo.records\ndpo.adapters.find_adapters()" + REPORT,
        as_command("--help"),
        as_command("adapters"),
        as_command("prepare", "--help"),
        as_command("inspect", "--help"),
        as_command("evaluate", "--help"),
        as_command("recipe", "--help"),
        as_command("generate", "--help"),
        as_command("merge", "--help"),
        "import dpo.inspection.page" + REPORT,
        "import dpo.generation.run" + REPORT,
    ],
    ids=[
        *("imports", "help", "adapters", "prepare", "inspect", "evaluate", "recipe", "generate", "merge"),
        *("page", "generation"),
    ],
)
def test_the_data_half_and_its_commands_load_nothing_heavy(code: str) -> None:
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "loaded: []"


def test_preparing_data_loads_nothing_heavy(chatml_folder: Path, tmp_path: Path) -> None:
    code = (
        "from dpo.data.config import DataConfig\n"
        "from dpo.data.pipeline import prepare\n"
        "from dpo.data.rendering.tokenization import load_tokenizer\n"
        f"config = DataConfig(datasets=('nectar={SAMPLES / 'nectar.jsonl'}',), validation_split=0.2)\n"
        f"prepared = prepare(config, load_tokenizer({str(chatml_folder)!r}), progress=False)\n"
        "print(len(prepared.train) + len(prepared.eval), 'pairs')" + REPORT
    )
    result = run_python(code, DPO_CACHE=str(tmp_path / "cache"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-2:] == ["91 pairs", "loaded: []"]


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts in pyproject.toml for the package in a folder."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("adapters/nectar.py", "import dpo.data.config", "Folders import in one direction"),
        ("engine/packing.py", "from dpo.objective import losses", "Folders import in one direction"),
        ("merging/run.py", "import dpo.training.run", "Folders import in one direction"),
        ("training/settings/fields.py", "import dpo.training.trainers.base", "The parts of training import"),
        ("data/rendering/template.py", "import dpo.data.cleaning.split", "The parts of the data pipeline import"),
        ("training/settings/fields.py", "import dpo.training.settings.checks", "No file or folder imports itself"),
        ("data/report.py", "def later():\n    import torch", "do not import torch"),
        ("adapters/columns.py", "import jinja2", "Adapters import neither templates nor tokenizers"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(tmp_path: Path, file: str, line: str, broken: str) -> None:
    shutil.copytree(ROOT / "dpo", tmp_path / "dpo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "dpo" / file).open("a", encoding="utf-8") as module:
        module.write(f"\n{line}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    verdicts = [line for line in result.stdout.splitlines() if line.startswith(broken) or broken in line]
    assert any("BROKEN" in verdict for verdict in verdicts), result.stdout


def test_the_package_keeps_its_contracts() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "6 kept, 0 broken" in result.stdout
