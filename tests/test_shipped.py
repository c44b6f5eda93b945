"""Shipped files: found under their relative names in a folder without them, and never in place of a user's file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpo import shipped
from dpo.data.cleaning.contamination import Contamination
from dpo.data.reading.source import parse_source
from dpo.data.rendering.template import load_template
from dpo.errors import DPOError
from dpo.recipe_file import read_recipe
from dpo.shipped import find_file
from dpo.training.settings.deepspeed_config import load_deepspeed_config
from tests.builders import ROOT


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, without any file. Every note is new again."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    shipped.note.cache_clear()
    return folder


def test_the_shipped_folders_are_beside_the_package_in_a_checkout() -> None:
    assert shipped.IS_CHECKOUT
    assert shipped.ROOT == ROOT
    for folder in shipped.FOLDERS:
        assert any((ROOT / folder).iterdir())


@pytest.mark.parametrize("path", ["samples/nectar.jsonl", "./samples/nectar.jsonl", "runs/demo.yaml"])
def test_a_shipped_file_is_found_and_noted_once(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_file(Path(path)) == find_file(Path(path)) == ROOT / path
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"note: {Path(path)} is not in the current folder. Using the file shipped with dpo: {ROOT / path}\n"
    )


def test_a_file_of_the_user_comes_first(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = Path("samples/nectar.jsonl")
    own.parent.mkdir()
    own.touch()
    assert find_file(own) == own
    assert find_file(empty_folder / own) == empty_folder / own
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "path",
    [
        *("", "samples", "samples/none.jsonl", "main.py", "dpo/errors.py", "/samples/nectar.jsonl"),
        *("samples/../README.md", "samples/../samples/nectar.jsonl", "../samples/nectar.jsonl"),
    ],
)
def test_other_paths_stay_as_they_are(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_file(Path(path)) == Path(path)
    assert capsys.readouterr().err == ""


def test_other_ranks_use_the_file_without_a_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert find_file(Path("runs/demo.yaml")) == ROOT / "runs/demo.yaml"
    assert capsys.readouterr().err == ""


def test_every_reader_of_a_path_finds_the_shipped_file() -> None:
    assert parse_source("nectar=samples/nectar.jsonl@0.5").files == (ROOT / "samples/nectar.jsonl",)
    assert load_template("templates/zephyr.jinja").source == (ROOT / "templates/zephyr.jinja").read_text()
    assert load_template("zephyr").source == load_template("templates/zephyr.jinja").source
    assert read_recipe(Path("runs/demo.yaml")).is_one_run
    assert load_deepspeed_config("ds_configs/zero2.json")["zero_optimization"]["stage"] == 2
    assert Contamination.read(["samples/ultrafeedback.jsonl"]).runs


def test_a_recipe_keeps_the_name_that_the_user_wrote() -> None:
    assert read_recipe(Path("runs/smollm2_stages.yaml")).file == Path("runs/smollm2_stages.yaml")


MISSING = {
    "samples/none.jsonl": lambda: parse_source("nectar=samples/none.jsonl"),
    "templates/none.jinja": lambda: load_template("templates/none.jinja"),
    "runs/none.yaml": lambda: read_recipe(Path("runs/none.yaml")),
    "ds_configs/none.json": lambda: load_deepspeed_config("ds_configs/none.json"),
    "samples/none.txt": lambda: Contamination.read(["samples/none.txt"]),
}


@pytest.mark.parametrize("path", MISSING)
def test_the_error_for_a_missing_file_names_the_path_of_the_user_alone(path: str) -> None:
    with pytest.raises(DPOError) as caught:
        MISSING[path]()
    assert path in str(caught.value)
    assert str(ROOT) not in str(caught.value)


def test_worker_processes_use_the_shipped_file_without_a_second_note(chatml_folder: Path, tmp_path: Path) -> None:
    code = (
        "from dpo.data import workers\n"
        "from dpo.data.config import DataConfig\n"
        "from dpo.data.pipeline import prepare\n"
        "from dpo.data.rendering.tokenization import load_tokenizer\n"
        "if __name__ == '__main__':\n"
        "    workers.BATCHES_ALONE = 0\n"
        "    config = DataConfig(datasets=('nectar=samples/nectar.jsonl',), num_proc=2)\n"
        f"    prepared = prepare(config, load_tokenizer({str(chatml_folder)!r}), progress=False)\n"
        "    print(len(prepared.train))\n"
    )
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "DPO_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "91\n"
    assert done.stderr.count("note: ") == 1
