"""Tests of dpo.recipe_file: the stages of a YAML file, and main.py's command line for each."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dpo.commands import prepare
from dpo.commands.stages import STAGE_COMMANDS
from dpo.errors import ConfigError
from dpo.recipe_file import asks_for_dry_run, read_recipe, with_config
from dpo.recipes.stage_commands import command_argv

Write = Callable[[str], Path]

KNOWN = ["stage", "model", "rate", "output_dir", "names", "loud", "config"]
TWO_STAGES = """
model: base
rate: 0.5
stages:
  - sft: {output_dir: out/sft}
  - dpo: {model: out/sft, rate: 0.25, output_dir: out/dpo}
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        file = tmp_path / "recipe.yaml"
        file.write_text(text)
        return file

    return write


def refusal(file: Path, *argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        with_config(["--config", str(file), *argv], KNOWN)
    return str(caught.value)


def test_the_flags_of_a_stage_override_the_common_ones(write: Write) -> None:
    sft, dpo = read_recipe(write(TWO_STAGES)).stages
    assert (sft.name, sft.kind, dict(sft.flags)) == (
        "sft",
        "sft",
        {"model": "base", "rate": 0.5, "output_dir": "out/sft"},
    )
    assert dict(dpo.flags) == {"model": "out/sft", "rate": 0.25, "output_dir": "out/dpo"}
    assert (sft.output, dpo.output) == ("out/sft", "out/dpo")


def test_main_runs_the_named_stage_and_the_command_line_overrides_it(write: Write) -> None:
    file = write(TWO_STAGES)
    argv = with_config(["--rate", "1", "--config", str(file), "--stage", "dpo", "--names", "a", "b"], KNOWN)
    assert argv == [
        *("--stage=dpo", "--model=out/sft", "--rate=0.25", "--output_dir=out/dpo"),
        *("--rate", "1", "--names", "a", "b"),
    ]


def test_commands_do_not_read_the_common_flags(write: Write) -> None:
    file = write("model: base\nstages:\n  - dpo: {rate: 1}\n  - merge: {model: m, output: out}\n")
    dpo, merge = read_recipe(file).stages
    assert dict(dpo.flags) == {"model": "base", "rate": 1}
    assert dict(merge.flags) == {"model": "m", "output": "out"}
    assert (dpo.trains, merge.trains, merge.output) == (True, False, "out")


def test_an_output_that_yaml_reads_as_a_number_is_still_a_path(write: Write) -> None:
    sft, merge = read_recipe(write("stages:\n  - sft: {output_dir: 2024}\n  - merge: {output: 2025}\n")).stages
    assert (sft.output, merge.output) == ("2024", "2025")


def test_null_in_a_stage_removes_a_common_flag(write: Write) -> None:
    file = write("rate: 0.5\nmodel: m\nstages:\n  - dpo: {rate: null}\n")
    assert with_config(["--config", str(file)], KNOWN) == ["--stage=dpo", "--model=m"]


def test_the_only_training_stage_need_not_be_named(write: Write) -> None:
    file = write("stages:\n  - merge: {model: a}\n  - sft: {model: b}\n")
    assert with_config(["--config", str(file)], KNOWN) == ["--stage=sft", "--model=b"]


def test_a_name_tells_two_stages_of_a_kind_apart(write: Write) -> None:
    file = write("stages:\n  - dpo: {rate: 1}\n  - dpo: {name: again, rate: 2}\n")
    assert [(stage.name, stage.kind) for stage in read_recipe(file).stages] == [("dpo", "dpo"), ("again", "dpo")]
    assert with_config(["--config", str(file), "--stage", "again"], KNOWN) == ["--stage=dpo", "--rate=2"]


def test_a_file_without_stages_contains_the_flags_of_one_run(write: Write) -> None:
    file = write("stage: sft\nrate: 2\n")
    argv = ["--config", str(file), "--stage", "dpo"]
    assert with_config(argv, KNOWN) == ["--stage=sft", "--rate=2", *argv]
    (stage,) = read_recipe(file).stages
    assert (stage.name, stage.kind, stage.flags) == ("sft", "sft", {"stage": "sft", "rate": 2})


def test_without_a_file_the_command_line_is_unchanged() -> None:
    assert with_config(["--stage", "sft", "--rate", "1"], KNOWN) == ["--stage", "sft", "--rate", "1"]


def test_without_stage_the_error_lists_the_stages_and_the_command_that_runs_all(write: Write) -> None:
    file = write(TWO_STAGES)
    assert refusal(file) == (
        f"{file}: the file contains the training stages sft, dpo.\n  Choose one with --stage.\n"
        f"  Run all stages in order: dpo recipe {file}"
    )


def test_an_unknown_stage_and_one_that_main_does_not_run_are_refused(write: Write) -> None:
    file = write(TWO_STAGES + "  - merge: {model: m}\n")
    assert refusal(file, "--stage", "dppo") == (
        f"{file}: unknown stage 'dppo'. Did you mean dpo?\n  Available: dpo, merge, sft"
    )
    assert "this stage is run by dpo merge, not by main.py" in refusal(file, "--stage", "merge")
    assert f"dpo recipe {file} --only merge" in refusal(file, "--stage", "merge")
    assert "does not contain a training stage" in refusal(write("stages:\n  - merge: {}\n"))


def test_an_unknown_flag_names_the_file_and_the_stage(write: Write) -> None:
    file = write("stages:\n  - dpo: {name: second, raet: 1}\n")
    assert refusal(file).startswith(f"{file}, stage 'second': unknown key 'raet'. Did you mean rate")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: 3", "stages: expected a list of stages, found int"),
        ("stages: []", "stages: expected a list of stages, found an empty list"),
        ("stages: {dpo: {}}", "stages: expected a list of stages, found dict"),
        ("stages: [dpo]", "expected entries with one key, such as - dpo: {output_dir: ...}, found 'dpo'"),
        ("stages: [{dpo: {}, sft: {}}]", "expected entries with one key"),
        ("stages: [{dppo: {}}]", "unknown stage 'dppo'. Did you mean dpo?"),
        ("stages: [{3: {}}]", "unknown stage '3'"),
        ("stages: [{dpo: }]", "stage 'dpo': expected 'name: value' flags, found NoneType"),
        ("stages: [{dpo: [1]}]", "stage 'dpo': expected 'name: value' flags, found list"),
        ("stages: [{dpo: {}}, {dpo: {}}]", "two stages have the name 'dpo'"),
        ("stages: [{dpo: {name: sft}}, {sft: {}}]", "two stages have the name 'sft'"),
        ("stage: sft\nstages: [{dpo: {}}]", "the key 'stage' is not allowed in a file with 'stages'"),
        ("stages: [{dpo: {stage: sft}}]", "stage 'dpo': the key 'stage' is not allowed"),
        ("stages: [{merge: {output: [x]}}]", "stage 'merge': output: expected one path, found ['x']"),
        ("stages: [{merge: {output: {x: 1}}}]", "stage 'merge': output: expected one path, found {'x': 1}"),
        ("output_dir: [x]\nstages: [{sft: {}}]", "stage 'sft': output_dir: expected one path, found ['x']"),
        ("output_dir: {x: 1}", "output_dir: expected one path, found {'x': 1}"),
        (
            "stage: foo",
            "unknown stage 'foo'.\n  Available: dpo, sft\n  A file without 'stages' is one training run of main.py",
        ),
        ("stage: merge", "unknown stage 'merge'"),
        ("stage: [dpo]", "unknown stage '['dpo']'"),
    ],
)
def test_an_invalid_recipe_is_an_error_that_says_what_was_expected(write: Write, text: str, message: str) -> None:
    file = write(text)
    error = refusal(file, "--stage", "dpo")
    assert error.startswith(str(file))
    assert message in error


def test_a_dry_run_is_a_flag_of_the_command_line_only(write: Write) -> None:
    assert asks_for_dry_run(["--rate", "1", "--dry_run"])
    assert asks_for_dry_run(["--dry-run", "true"])
    assert not asks_for_dry_run(["--dry_run", "false"])
    assert not asks_for_dry_run(["--rate", "1"])
    assert "--dry_run" in refusal(write("dry_run: true"))


def test_a_command_s_flags_are_checked_by_the_command_itself(write: Write) -> None:
    """Uses `prepare`, which is not a stage, as if it were one."""
    good = "{datasets: [nectar], model_name_or_path: m, output: out, overwrite: true, keep_ties: false, num_proc: null}"
    recipe = read_recipe(write(f"stages: [{{merge: {good}}}]"))
    stage = type(recipe.stages[0])(name="made", kind="prepare", flags=recipe.stages[0].flags)
    commands = {"prepare": prepare}
    assert command_argv(recipe, stage, commands) == [
        "prepare",
        *("--datasets", "nectar", "--model_name_or_path=m", "--output=out", "--overwrite", "--keep_ties=false"),
    ]
    for flags, message in (
        ({"output": "out"}, "the following arguments are required: --model_name_or_path"),
        ({"output": "out", "model_name_or_path": "m", "format": "xml"}, "invalid choice: 'xml'"),
        ({"output": "out", "model_name_or_path": "m", "formt": "jsonl"}, "unknown key 'formt'. Did you mean format"),
    ):
        with pytest.raises(ConfigError) as caught:
            command_argv(recipe, type(stage)(name="made", kind="prepare", flags=flags), commands)
        assert str(caught.value).startswith(f"{recipe.file}, stage 'made': ")
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("value", "is_on"),
    [("true", True), ("'yes'", True), ("1", True), ("false", False), ("'no'", False), ("0", False), ("null", False)],
)
def test_a_switch_of_a_command_may_be_a_yaml_boolean_or_its_text(write: Write, value: str, is_on: bool) -> None:
    recipe = read_recipe(write(f"stages: [{{merge: {{adapter: a, output: out, overwrite: {value}}}}}]"))
    argv = command_argv(recipe, recipe.stages[0], STAGE_COMMANDS)
    assert argv == ["merge", "--adapter=a", "--output=out", *(["--overwrite"] if is_on else [])]


@pytest.mark.parametrize("value", ["never", "[true]", "{a: b}", "2", "''"])
def test_a_switch_of_a_command_is_either_true_or_false(write: Write, value: str) -> None:
    recipe = read_recipe(write(f"stages: [{{merge: {{adapter: a, output: out, overwrite: {value}}}}}]"))
    with pytest.raises(ConfigError, match=r"stage 'merge': overwrite: expected true or false, found "):
        command_argv(recipe, recipe.stages[0], STAGE_COMMANDS)
