"""The wheel contains everything, and works in an empty folder without a checkout."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from dpo.shipped import FOLDERS
from tests.builders import ROOT
from tests.conftest import WriteRows

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
TIMEOUT_S = 300
NUM_ROWS = 2600
"""More than one process prepares alone."""
VOTES = '''"""Votes, which are kept where torch is not loaded."""
import os
import sys
from dpo.adapters.base import Adapter
from dpo.records import Drop, Message, Preference
EXAMPLES = ()
def convert(row, options):
    if "torch" in sys.modules:
        raise Drop("torch_is_loaded")
    chosen = f"Process {os.getpid()}."
    yield Preference(prompt=(Message(role="user", content=row["prompt"]),), chosen=chosen, rejected=row["rejected"])
ADAPTER = Adapter(name="votes", hub_id=None, split="", columns=("prompt",), convert=convert, examples=EXAMPLES)
'''

Run = Callable[..., subprocess.CompletedProcess[str]]


def pip(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def copy_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was installed. The wheel is built in a copy, since a build leaves files behind."""
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("dpo", *FOLDERS):
        copy_tree(ROOT / name, source / name)
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    pip("install", "--target", str(folder / "site"), str(wheel))
    shutil.rmtree(source)
    return folder / "site"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.fixture
def run(site: Path, empty: Path) -> Run:
    """Runs Python in the empty folder, with the installed package in front of every other."""

    def start(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            cwd=empty,
            env=os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    return start


@pytest.fixture
def dpo(site: Path, run: Run) -> Run:
    """Runs the installed console script, which must succeed."""

    def start(*words: str) -> subprocess.CompletedProcess[str]:
        done = run(str(site / "bin" / "dpo"), *words)
        assert done.returncode == 0, done.stderr
        return done

    return start


def requirements(lines: list[str]) -> set[Requirement]:
    """The requirements among the lines of a file, without comments and options of pip."""
    stripped = (line.partition(" #")[0].strip() for line in lines)
    return {Requirement(line) for line in stripped if line and not line.startswith(("#", "-"))}


def of_file(name: str) -> set[Requirement]:
    return requirements((ROOT / name).read_text().splitlines())


def test_the_packages_in_pyproject_are_those_of_the_source_and_the_shipped_folders() -> None:
    in_source = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "dpo").rglob("__init__.py")}
    assert len(in_source) > 20
    setuptools = PYPROJECT["tool"]["setuptools"]
    shipped = {f"dpo.{folder}": folder for folder in FOLDERS}
    assert setuptools["packages"] == sorted({*in_source, *shipped})
    assert setuptools["package-dir"] == shipped


def test_the_extras_are_the_requirements_of_the_files() -> None:
    assert set(EXTRAS) == {"gpu", "eval", "4bit", "docs", "dev"}
    assert requirements(EXTRAS["gpu"]) == of_file("requirements-gpu.txt")
    others, tools = EXTRAS["dev"][0], EXTRAS["dev"][1:]
    assert Requirement(others) == Requirement("dpo[eval,4bit,docs]")
    of_others = [line for extra in Requirement(others).extras for line in EXTRAS[extra]]
    assert len(of_others) == 5
    assert requirements(tools + of_others) == of_file("requirements-dev.txt")
    assert {r.name for r in requirements(EXTRAS["eval"])} == {"lm-eval"}
    assert {r.name for r in requirements(EXTRAS["4bit"])} == {"bitsandbytes"}
    assert all(r.name.startswith("mkdocs") for r in requirements(EXTRAS["docs"]))


def test_the_wheel_requires_what_requirements_txt_lists(site: Path) -> None:
    (info,) = site.glob("*.dist-info")
    required = [Requirement(line) for line in PathDistribution(info).requires or ()]
    always = {requirement for requirement in required if requirement.marker is None}
    assert always == of_file("requirements.txt")
    assert Requirement("torch==2.13.0") in always


def test_the_wheel_contains_every_file_and_no_other(site: Path) -> None:
    def files(folder: Path) -> set[str]:
        return {
            str(file.relative_to(folder))
            for file in folder.rglob("*")
            if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
        }

    expected = files(ROOT / "dpo") | {f"{name}/{file}" for name in FOLDERS for file in files(ROOT / name)}
    assert {"cli.py", "samples/nectar.jsonl", "evaluation/tasks/dpo_facts.yaml"} <= expected
    assert files(site / "dpo") == expected


def test_the_installed_package_is_imported(site: Path, run: Run) -> None:
    done = run("-c", "import dpo, dpo.shipped; print(dpo.__file__, dpo.shipped.ROOT, dpo.shipped.IS_CHECKOUT)")
    assert done.stdout.split() == [str(site / "dpo" / "__init__.py"), str(site / "dpo"), "False"]


def test_help_lists_every_command(dpo: Run) -> None:
    shown = dpo("--help").stdout
    for command in ("adapters", "prepare", "inspect", "train", "generate", "merge", "evaluate", "recipe"):
        assert f"\n    {command} " in shown


def test_adapters_are_listed_with_a_rendered_example(dpo: Run) -> None:
    shown = dpo("adapters").stdout
    assert "\nnectar\n" in shown and "    <|im_start|>assistant\n" in shown


def test_a_shipped_sample_is_prepared_in_a_shipped_template(
    dpo: Run, site: Path, empty: Path, chatml_folder: Path
) -> None:
    flags = ["--datasets", "nectar=samples/nectar.jsonl", "--template", "zephyr", "--output", "prepared"]
    done = dpo("prepare", "--model_name_or_path", str(chatml_folder), *flags)
    assert done.stderr == (
        "note: samples/nectar.jsonl is not in the current folder. "
        f"Using the file shipped with dpo: {site}/dpo/samples/nectar.jsonl\n"
    )
    assert done.stdout.endswith("prepared: 91 pairs in train\n")
    manifest = json.loads((empty / "prepared" / "manifest.json").read_text())
    assert manifest["chat_template"] == (site / "dpo/templates/zephyr.jinja").read_text()
    assert manifest["config"]["datasets"] == ["nectar=samples/nectar.jsonl"]


def test_a_dry_run_of_a_shipped_configuration_finds_all_of_its_files(
    dpo: Run, site: Path, empty: Path, tiny_model: Path
) -> None:
    done = dpo("train", "--dry_run", "--config", "runs/demo.yaml", "--model_name_or_path", str(tiny_model))
    assert "ZeRO stage: 1" in done.stdout and "output_dir: output/demo" in done.stdout
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    content: dict[str, Any] = yaml.safe_load((site / "dpo/runs/demo.yaml").read_text())
    files = ["runs/demo.yaml", content["deepspeed"], *(spec.partition("=")[2] for spec in content["datasets"])]
    assert sorted(note.partition(" is not ")[0] for note in notes) == sorted(f"note: {file}" for file in files)
    assert all(f": {site}/dpo/" in note for note in notes)
    assert list(empty.iterdir()) == []


def test_a_run_trains_and_the_processes_that_prepare_its_rows_do_not_load_torch(
    dpo: Run, empty: Path, tiny_model: Path, write_rows: WriteRows
) -> None:
    (empty / "votes.py").write_text(VOTES)
    rows = write_rows([{"prompt": f"What is {i} plus 1?", "rejected": "Perhaps 7."} for i in range(NUM_ROWS)])
    flags = {
        "datasets": f"votes={rows}",
        "adapter": "votes.py",
        "num_proc": 2,
        "model_name_or_path": tiny_model,
        "max_steps": 1,
        "global_batch_size": 4,
        "save_strategy": "no",
        "output_dir": "out",
    }
    done = dpo("train", *(word for name, value in flags.items() for word in (f"--{name}", str(value))))
    assert "note: " not in done.stderr
    report = json.loads((empty / "out" / "data_report.json").read_text())
    assert report["total"]["rows"] == report["total"]["kept"] == NUM_ROWS
    assert json.loads((empty / "out" / "train_results.json").read_text())["pairs"] == 4
    assert (empty / "out" / "model.safetensors").is_file()


def test_a_recipe_starts_the_installed_package(dpo: Run, site: Path, empty: Path, tiny_model: Path) -> None:
    content = {
        "model_name_or_path": str(tiny_model),
        "datasets": ["nectar=samples/nectar.jsonl"],
        "stages": [{"dpo": {"output_dir": "out"}}],
    }
    (empty / "recipe.yaml").write_text(yaml.safe_dump(content))
    shown = dpo("recipe", "recipe.yaml", "--launcher", "echo launched").stdout
    assert shown.splitlines()[-1] == f"launched {site}/dpo/__main__.py train --config recipe.yaml --stage dpo"
