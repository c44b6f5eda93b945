"""python -m dpo recipe: which stages are run, how, and what is said when one fails."""

import sys
from pathlib import Path

import pytest

from dpo.cli import main
from dpo.commands.recipe import chosen, command_of, find_launcher, find_main, what_is_done
from dpo.errors import ConfigError
from dpo.recipes import Recipe, Stage, read_recipe
from tests.builders import ROOT

RECIPE = """
datasets: [nectar]
model_name_or_path: m
stages:
  - dpo: {output_dir: one}
  - dpo: {name: again, output_dir: two, beta: 0.2}
  - dpo: {name: third, output_dir: three}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return read_recipe(file)


def names(stages: list[Stage]) -> list[str]:
    return [stage.name for stage in stages]


def test_all_stages_or_those_from_one_on_or_some_are_run_in_the_recipe_s_order(recipe: Recipe) -> None:
    assert names(chosen(recipe, None, None)) == ["dpo", "again", "third"]
    assert names(chosen(recipe, "again", None)) == ["again", "third"]
    assert names(chosen(recipe, None, ["third", "dpo"])) == ["dpo", "third"]


@pytest.mark.parametrize(
    ("first", "only", "message"),
    [
        ("agian", None, "unknown stage 'agian'. Did you mean again"),
        (None, ["x"], "unknown stage 'x'"),
        ("dpo", ["dpo"], "pass one or the other"),
    ],
)
def test_stages_that_cannot_be_meant_are_refused(
    recipe: Recipe, first: str | None, only: list[str] | None, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        chosen(recipe, first, only)
    assert message in str(caught.value)


def test_a_stage_that_trains_is_main_py_under_the_launcher(recipe: Recipe) -> None:
    again = recipe.stage("again")
    assert command_of(recipe, again, ["torchrun", "--nproc_per_node", "2"], overwrite=False) == [
        *("torchrun", "--nproc_per_node", "2", str(ROOT / "main.py")),
        *("--config", str(recipe.file), "--stage", "again"),
    ]
    assert command_of(recipe, again, ["python"], overwrite=True)[-1] == "--overwrite_output_dir"


def test_a_file_of_one_run_needs_no_stage(tmp_path: Path) -> None:
    recipe = read_recipe(ROOT / "runs" / "demo.yaml")
    (stage,) = recipe.stages
    assert command_of(recipe, stage, ["python"], overwrite=False)[2:] == ["--config", str(ROOT / "runs" / "demo.yaml")]


def test_main_py_is_found_beside_the_package() -> None:
    assert find_main() == ROOT / "main.py"


def test_a_launcher_is_found_on_the_path_or_beside_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    beside = Path(sys.executable)
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_launcher(f"{beside.name} -X dev") == [str(beside), "-X", "dev"]
    monkeypatch.setenv("PATH", str(beside.parent))
    assert find_launcher(f"{beside.name} -X dev") == [str(beside), "-X", "dev"]
    for missing in ("no_such_launcher --gpus 2", ""):
        with pytest.raises(ConfigError, match="there is no such program"):
            find_launcher(missing)


@pytest.mark.parametrize(
    ("text", "launcher", "message"),
    [
        ("stage: foo", "python", "unknown stage 'foo'"),
        (
            RECIPE,
            "deepspeed '",
            "--launcher deepspeed ': expected words as a shell has them, found: No closing quotation",
        ),
        ("stages: [{merge: {adapter: a, output: [x]}}]", "python", "output: expected one path, found ['x']"),
        ("stages: [{merge: {adapter: a, output: {x: 1}}}]", "python", "output: expected one path, found {'x': 1}"),
    ],
)
def test_what_is_no_recipe_and_no_launcher_ends_with_exit_code_2(
    text: str, launcher: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    assert main(["recipe", str(file), "--launcher", launcher]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and message in said.err
    assert said.out == ""


def test_results_or_a_merged_model_show_that_a_stage_is_done(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    dpo = Stage(name="dpo", kind="dpo", flags={"output_dir": output})
    merge = Stage(name="merge", kind="merge", flags={"output": output})
    evaluate = Stage(name="evaluate", kind="evaluate", flags={"output": output})
    (tmp_path / "out").mkdir()
    assert (what_is_done(dpo), what_is_done(merge)) == (None, None)
    (tmp_path / "out" / "config.json").write_text("{}")
    assert (what_is_done(dpo), what_is_done(merge)) == (None, tmp_path / "out" / "config.json")
    (tmp_path / "out" / "train_results.json").write_text("{}")
    assert what_is_done(dpo) == tmp_path / "out" / "train_results.json"
    assert what_is_done(evaluate) is None


def test_every_flag_is_checked_before_the_first_stage_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("beta: 0.2", "btea: 0.2"))
    assert main(["recipe", str(file)]) == 2
    said = capfd.readouterr()
    assert f"--config {file}, stage 'again': unknown key 'btea'. Did you mean beta" in said.err
    assert said.out == ""


def test_the_first_stage_that_fails_ends_it_with_its_exit_code_and_the_way_to_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("[nectar]", f"['triplets={tmp_path}/none.jsonl']"))
    assert main(["recipe", str(file), "--from", "again"]) == 2
    said = capfd.readouterr()
    assert said.out.startswith(f"[1/2] again: {sys.executable} {ROOT / 'main.py'} --config {file} --stage again\n")
    assert "[2/2]" not in said.out
    assert "there is no file or folder" in said.err or "there is no such folder" in said.err
    assert (
        "error: stage 'again' ended with exit code 2.\n"
        f"  When that is mended, go on with: python -m dpo recipe {file} --from again\n"
    ) in said.err


def test_devices_are_planned_for_with_a_dry_run_alone(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", str(recipe.file), "--num_devices", "2"]) == 2
    assert "--num_devices is for --dry_run" in capsys.readouterr().err
