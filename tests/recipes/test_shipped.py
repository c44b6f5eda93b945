"""Every recipe in runs/: its flags are known and do not contradict each other, and its dry run needs no network."""

from pathlib import Path

import pytest

from dpo.cli import main
from dpo.commands.stages import STAGE_COMMANDS
from dpo.commands.train import run
from dpo.recipe_file import read_recipe
from dpo.recipes.stage_commands import command_argv
from dpo.training.settings.flags import parse_flags
from tests.builders import ROOT

RUNS = sorted((ROOT / "runs").glob("*.yaml"))


def test_runs_contains_the_expected_recipes() -> None:
    assert [file.stem for file in RUNS] == ["demo", "dpo_pythia_hh", "neural_chat_7b", "smollm2_stages", "zephyr_7b"]


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_every_flag_of_every_stage_is_known(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    recipe = read_recipe(file)
    for stage in recipe.stages:
        if stage.trains:
            data, flags = parse_flags(["--config", str(file), "--stage", stage.name])
            assert (data.stage, flags["output_dir"]) == (stage.kind, stage.output)
        else:
            assert command_argv(recipe, stage, STAGE_COMMANDS)[0] == stage.kind


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_each_stage_reads_only_outputs_of_earlier_stages(file: Path) -> None:
    recipe = read_recipe(file)
    made: set[str] = set()
    for stage in recipe.stages:
        named = [stage.flags.get(flag) for flag in ("model_name_or_path", "model", "adapter")]
        named += stage.flags.get("models", [])
        assert {name for name in named if name and str(name).startswith("output/")} <= made
        assert stage.output not in made
        made.add(str(stage.output))


def test_pairs_are_evaluated_in_the_training_template() -> None:
    """The evaluate stage names the template, because it also measures models that were not trained with it."""
    asked = [
        (stage.flags.get("template"), recipe.training[0].flags.get("template", "chatml"))
        for recipe in map(read_recipe, RUNS)
        for stage in recipe.stages
        if stage.kind == "evaluate" and "pairs" in stage.flags
    ]
    assert asked == [("chatml", "chatml")]


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_a_dry_run_without_a_network_prints_every_stage(
    file: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    # The demo is for two cores. Its embedded model would be converted again for the cache of this test.
    planned = ["2", "--model_name_or_path", str(tiny_model)] if file.stem == "demo" else ["8"]
    run(["--config", str(file), "--dry_run", "--num_devices", *planned])
    said = capsys.readouterr().out
    for stage in read_recipe(file).stages:
        assert f"output_dir: {stage.output}" in said if stage.trains else f"would run: dpo {stage.kind}" in said
    assert ("stand-in" in said) is (file.stem != "demo")
    assert not (ROOT / "output" / file.stem).exists()


def test_the_recipe_command_prints_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["recipe", "runs/dpo_pythia_hh.yaml", "--dry_run", "--num_devices", "4", "--only", "dpo"]) == 0
    said = capsys.readouterr().out
    assert "== dpo: stage 2 of 2 in runs/dpo_pythia_hh.yaml" in said and "== sft" not in said
    assert "64 pairs = 8 per device x 4 device(s) x 2 accumulation step(s)" in said
