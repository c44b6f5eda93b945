"""`dpo recipe`: which stages run, how they start, and what is printed when one fails."""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import deepspeed  # noqa: F401  # at the top, since its first import prints a line
import lm_eval.tasks
import pytest

from dpo import shipped
from dpo.cli import main
from dpo.commands.stages import STAGE_COMMANDS
from dpo.errors import ConfigError, DPOError
from dpo.recipe_file import Recipe, Stage, read_recipe, what_is_done
from dpo.recipes.checking import check_stages
from dpo.recipes.running import chosen, command_of, find_finished, find_launcher, find_main
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


def test_the_selected_stages_run_in_the_recipe_s_order(recipe: Recipe) -> None:
    assert names(chosen(recipe, None, None)) == ["dpo", "again", "third"]
    assert names(chosen(recipe, "again", None)) == ["again", "third"]
    assert names(chosen(recipe, None, ["third", "dpo"])) == ["dpo", "third"]


@pytest.mark.parametrize(
    ("first", "only", "message"),
    [
        ("agian", None, "unknown stage 'agian'. Did you mean again"),
        (None, ["x"], "unknown stage 'x'"),
        ("dpo", ["dpo"], "--from and --only both select the stages to run.\n  Pass only one of them."),
    ],
)
def test_unknown_stages_and_both_flags_at_once_are_refused(
    recipe: Recipe, first: str | None, only: list[str] | None, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        chosen(recipe, first, only)
    assert message in str(caught.value)


def test_a_training_stage_runs_main_py_with_the_launcher(recipe: Recipe) -> None:
    again = recipe.stage("again")
    assert command_of(recipe, again, STAGE_COMMANDS, ["torchrun", "--nproc_per_node", "2"], overwrite=False) == [
        *("torchrun", "--nproc_per_node", "2", str(ROOT / "main.py")),
        *("--config", str(recipe.file), "--stage", "again"),
    ]
    assert command_of(recipe, again, STAGE_COMMANDS, ["python"], overwrite=True)[-1] == "--overwrite_output_dir"


def test_a_file_of_one_run_needs_no_stage(tmp_path: Path) -> None:
    recipe = read_recipe(ROOT / "runs" / "demo.yaml")
    (stage,) = recipe.stages
    assert command_of(recipe, stage, STAGE_COMMANDS, ["python"], overwrite=False)[2:] == [
        "--config",
        str(ROOT / "runs" / "demo.yaml"),
    ]


def test_main_py_trains_in_a_checkout_and_the_package_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_main() == [str(ROOT / "main.py")]
    monkeypatch.setattr(shipped, "IS_CHECKOUT", False)
    assert find_main() == [str(ROOT / "dpo" / "__main__.py"), "train"]


def test_a_launcher_is_found_on_the_path_or_in_this_python_s_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    beside = Path(sys.executable)
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_launcher(f"{beside.name} -X dev") == [str(beside), "-X", "dev"]
    monkeypatch.setenv("PATH", str(beside.parent))
    assert find_launcher(f"{beside.name} -X dev") == [str(beside), "-X", "dev"]
    for missing in ("no_such_launcher --gpus 2", ""):
        with pytest.raises(ConfigError, match=f"there is no such program on the PATH or in {beside.parent}"):
            find_launcher(missing)


@pytest.mark.parametrize(
    ("text", "launcher", "message"),
    [
        ("stage: foo", "python", "unknown stage 'foo'"),
        (
            RECIPE,
            "deepspeed '",
            "--launcher deepspeed ': expected a shell command, found an error in it: No closing quotation",
        ),
        ("stages: [{merge: {adapter: a, output: [x]}}]", "python", "output: expected one path, found ['x']"),
        ("stages: [{merge: {adapter: a, output: {x: 1}}}]", "python", "output: expected one path, found {'x': 1}"),
    ],
)
def test_a_wrong_recipe_or_launcher_ends_with_exit_code_2(
    text: str, launcher: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    assert main(["recipe", str(file), "--launcher", launcher]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and message in said.err
    assert said.out == ""


def test_train_results_or_a_merge_report_show_that_a_stage_is_finished(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    dpo = Stage(name="dpo", kind="dpo", flags={"output_dir": output})
    merge = Stage(name="merge", kind="merge", flags={"output": output})
    evaluate = Stage(name="evaluate", kind="evaluate", flags={"output": output})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    assert (what_is_done(dpo), what_is_done(merge)) == (None, None), "any model has a config.json"
    (tmp_path / "out" / "merge_report.json").write_text("{}")
    assert (what_is_done(dpo), what_is_done(merge)) == (None, tmp_path / "out" / "merge_report.json")
    (tmp_path / "out" / "train_results.json").write_text("{}")
    assert what_is_done(dpo) == tmp_path / "out" / "train_results.json"
    assert what_is_done(evaluate) is None


def test_every_flag_is_checked_before_the_first_stage_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("beta: 0.2", "btea: 0.2"))
    assert main(["recipe", str(file)]) == 2
    said = capfd.readouterr()
    assert f"{file}, stage 'again': unknown key 'btea'. Did you mean beta" in said.err
    assert said.out == ""


def test_the_first_stage_that_fails_ends_the_recipe_with_its_exit_code_and_the_command_to_resume(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recipe.yaml"
    (tmp_path / "none.jsonl").touch()
    file.write_text(RECIPE.replace("[nectar]", f"['triplets={tmp_path}/none.jsonl']").replace(": m\n", ": embedded\n"))
    assert main(["recipe", str(file), "--from", "again"]) == 2
    said = capfd.readouterr()
    assert said.out.startswith(f"[1/2] again: {sys.executable} {ROOT / 'main.py'} --config {file} --stage again\n")
    assert "[2/2]" not in said.out
    assert "the source contains no rows" in said.err
    assert (
        "error: stage 'again' failed with exit code 2.\n"
        f"  Fix the cause, then resume with: dpo recipe {file} --from again\n"
    ) in said.err


def test_num_devices_is_refused_without_a_dry_run(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", str(recipe.file), "--num_devices", "2"]) == 2
    assert "--num_devices has no effect without --dry_run" in capsys.readouterr().err


BROKEN = [
    ("dpo: {output_dir: two, lora_alpha: 8}", "--lora_alpha belongs to a new LoRA adapter: pass --lora_rank as well"),
    ("dpo: {output_dir: two, loss: [nosuch]}", "unknown loss 'nosuch'"),
    ("dpo: {output_dir: two, beta: -1}", "--beta -1.0: expected a number above 0"),
    ("dpo: {output_dir: two, lr_scheduler_type: cosin}", "cosin"),
    ("dpo: {output_dir: two, global_batch_size: 0}", "--global_batch_size 0: expected at least 1"),
    ("dpo: {output_dir: two, deepspeed: none.json}", "--deepspeed none.json: cannot be read"),
    ("dpo: {output_dir: two, datasets: [nectarine]}", "unknown adapter 'nectarine'. Did you mean nectar?"),
    ("dpo: {output_dir: two, datasets: [nectar=none.jsonl]}", "there is no file or folder 'none.jsonl'"),
    ("dpo: {output_dir: two, model_name_or_path: ./none}", "model ./none: there is no such folder"),
    ("dpo: {output_dir: two, btea: 1}", "unknown key 'btea'. Did you mean beta"),
    (
        "generate: {model: m, datasets: [nectar], output: a.jsonl, pick: longest}",
        "--pick longest chooses among several candidates",
    ),
    ("generate: {model: m, datasets: [nectarine], output: a.jsonl}", "unknown adapter 'nectarine'"),
    ("generate: {model: ./none, datasets: [nectar], output: a.jsonl}", "model ./none: there is no such folder"),
    ("generate: {model: m, datasets: [nectar], output: a.json}", "expected a file whose name ends in .jsonl"),
    ("evaluate: {models: [one]}", "nothing to measure"),
    ("evaluate: {models: [one], tasks: [dpo_facts], output: a.csv}", "expected a file that ends in .json"),
    ("evaluate: {models: [one], pairs: [nectarine]}", "unknown adapter 'nectarine'"),
    ("evaluate: {models: [./none], pairs: [nectar]}", "model ./none: there is no such folder"),
    ("merge: {adapter: one, output: two, check_prompts: 99}", "--check_prompts 99: expected 0 to 8"),
    ("merge: {adapter: one, output: two, max_shard_size: banana}", "--max_shard_size banana: expected a size such as"),
    ("merge: {adapter: one, output: kept}", "--output kept is not empty"),
]


@pytest.mark.parametrize("more", [(), ("--dry_run",)], ids=["run", "dry_run"])
@pytest.mark.parametrize(("stage", "message"), BROKEN, ids=[stage for stage, _ in BROKEN])
def test_a_mistake_in_a_later_stage_is_reported_before_the_first_one_starts(
    stage: str,
    message: str,
    more: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("kept").mkdir()
    Path("kept", "notes.txt").touch()
    first = "datasets: [nectar]\nmodel_name_or_path: m\nstages:\n  - sft: {output_dir: one}\n"
    Path("recipe.yaml").write_text(f"{first}  - {stage}\n")
    assert main(["recipe", "recipe.yaml", *more]) == 2
    said = capfd.readouterr()
    assert f"error: recipe.yaml, stage '{stage.partition(':')[0]}': " in said.err and message in said.err
    assert said.out == "", "no stage is started or printed"


def test_an_unknown_task_is_reported_before_the_first_stage_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    manager = lm_eval.tasks.TaskManager
    # Without lm-eval's own tasks, whose index takes half a minute to read.
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", lambda include_path, **_: manager(None, include_path, False))
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE + f"  - evaluate: {{models: [m], tasks: [dpo_fcats], output: {tmp_path}/a.json}}\n")
    assert main(["recipe", str(file)]) == 2
    said = capfd.readouterr()
    assert "stage 'evaluate': --tasks: unknown task 'dpo_fcats'. Did you mean dpo_facts?" in said.err
    assert said.out == ""


def test_a_missing_lm_eval_is_reported_before_the_first_stage_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "lm_eval" else find_spec(name, *rest)
    )
    file = tmp_path / "recipe.yaml"
    suite = f"{{models: [m], suite: open_llm_leaderboard, output: {tmp_path}/a.json}}"
    file.write_text(RECIPE + f"  - evaluate: {suite}\n")
    assert main(["recipe", str(file)]) == 2
    said = capfd.readouterr()
    assert "stage 'evaluate': benchmarks need lm-eval, which is not installed" in said.err
    assert said.out == ""


MAKING = """
datasets: [nectar]
model_name_or_path: m
stages:
  - sft: {output_dir: ./made/sft, lora_rank: 4}
  - merge: {adapter: made/sft, output: made/whole}
  - generate: {model: ./made/whole, datasets: [nectar], output: made/rows/a.jsonl}
  - dpo: {model_name_or_path: ./made/whole, datasets: ['triplets=made/rows/a.jsonl@0.5'], output_dir: made/dpo}
  - dpo: {name: again, model_name_or_path: ./made/dpo, datasets: [triplets=./made/rows], output_dir: made/again}
  - evaluate: {models: [./made/whole, ./made/again/checkpoint-1], pairs: [triplets=made/rows/a.jsonl]}
"""


def test_outputs_of_earlier_stages_need_not_exist_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(MAKING)
    recipe = read_recipe(Path("recipe.yaml"))
    check_stages(recipe, recipe.stages, STAGE_COMMANDS)
    check_stages(recipe, recipe.stages[3:], STAGE_COMMANDS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml"]
    Path("recipe.yaml").write_text(MAKING.replace("output: made/rows/a.jsonl", "output: made/other.jsonl"))
    recipe = read_recipe(Path("recipe.yaml"))
    with pytest.raises(DPOError, match=r"stage 'dpo': triplets=made/rows/a.jsonl@0.5: there is no file or folder"):
        check_stages(recipe, recipe.stages, STAGE_COMMANDS)


def test_a_finished_stage_may_be_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(MAKING)
    for mark in ("made/sft/train_results.json", "made/whole/config.json", "made/whole/merge_report.json"):
        Path(mark).parent.mkdir(parents=True, exist_ok=True)
        Path(mark).write_text("{}")
    recipe = read_recipe(Path("recipe.yaml"))
    check_stages(recipe, recipe.stages[:2], STAGE_COMMANDS)


def test_flags_that_depend_on_the_devices_are_not_checked_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = "global_batch_size: 64, per_device_train_batch_size: 8, gradient_accumulation_steps: 2"
    of_device = f"bf16: true, tf32: true, activation_offloading: true, deepspeed: {ROOT}/ds_configs/zero2.json"
    flags = f"output_dir: one, {sizes}, {of_device}"
    stages = f"  - dpo: {{{flags}}}\n  - dpo: {{name: b, output_dir: b}}\n"
    Path("recipe.yaml").write_text(f"datasets: [nectar]\nmodel_name_or_path: m\nstages:\n{stages}")
    recipe = read_recipe(Path("recipe.yaml"))
    check_stages(recipe, recipe.stages, STAGE_COMMANDS)


CHAIN = """
datasets: [nectar]
model_name_or_path: m
lora_rank: 4
stages:
  - sft: {output_dir: sft}
  - merge: {adapter: ./sft, output: whole}
  - generate: {model: whole, datasets: [nectar], output: rows.jsonl}
  - dpo: {model_name_or_path: m, datasets: ['triplets=rows.jsonl@0.5'], output_dir: dpo}
"""


class TestStagesWhoseInputIsMadeAgain:
    @pytest.fixture
    def finish(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Writes the outputs of stages to the current folder, each newer than the one before."""
        monkeypatch.chdir(tmp_path)
        Path("recipe.yaml").write_text(CHAIN)

        def finish(*marks: str) -> None:
            for seconds, mark in enumerate(marks):
                Path(mark).parent.mkdir(exist_ok=True)
                Path(mark).write_text("{}")
                os.utime(mark, (seconds, seconds))

        return finish

    @pytest.mark.parametrize(
        ("marks", "stage", "changed"),
        [
            (("whole/merge_report.json",), "merge", "sft"),
            (("sft/train_results.json", "rows.jsonl"), "generate", "merge"),
            (("sft/train_results.json", "whole/merge_report.json", "dpo/train_results.json"), "dpo", "generate"),
        ],
    )
    @pytest.mark.parametrize("more", [(), ("--dry_run",)], ids=["run", "dry_run"])
    def test_they_are_neither_skipped_nor_replaced_without_overwrite(
        self,
        finish: Callable[..., None],
        marks: tuple[str, ...],
        stage: str,
        changed: str,
        more: tuple[str, ...],
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        finish(*marks)
        assert main(["recipe", "recipe.yaml", *more]) == 2
        said = capfd.readouterr()
        assert said.out == "", "nothing is started"
        assert (
            f"stage '{stage}': {marks[-1]} was made from the output of stage '{changed}', "
            "which is about to run again.\n"
            "  Run both stages again, and those after them: "
            f"dpo recipe recipe.yaml --from {changed} --overwrite\n"
        ) in said.err
        assert all(Path(mark).is_file() for mark in marks)

    def test_overwrite_runs_all_again(self, finish: Callable[..., None]) -> None:
        finish("whole/merge_report.json", "rows.jsonl", "dpo/train_results.json")
        recipe = read_recipe(Path("recipe.yaml"))
        assert find_finished(recipe, recipe.stages, overwrite=True) == {}

    def test_a_stage_whose_own_flags_overwrite_runs_again(self, finish: Callable[..., None]) -> None:
        finish("whole/merge_report.json")
        Path("recipe.yaml").write_text(CHAIN.replace("output: whole", "output: whole, overwrite: 'yes'"))
        recipe = read_recipe(Path("recipe.yaml"))
        assert find_finished(recipe, recipe.stages, overwrite=False) == {}
        finish("sft/train_results.json")
        assert sorted(find_finished(recipe, recipe.stages, overwrite=False)) == ["merge", "sft"]

    def test_a_stage_that_reads_something_else_is_skipped(self, finish: Callable[..., None]) -> None:
        finish("dpo/train_results.json")
        Path("recipe.yaml").write_text(CHAIN.replace("triplets=rows.jsonl@0.5", "nectar"))
        recipe = read_recipe(Path("recipe.yaml"))
        assert find_finished(recipe, recipe.stages, overwrite=False) == {"dpo": Path("dpo/train_results.json")}

    def test_incomplete_rows_are_resumed_if_their_model_is_not_made_again(self, finish: Callable[..., None]) -> None:
        finish("sft/train_results.json", "whole/merge_report.json", "rows.jsonl")
        recipe = read_recipe(Path("recipe.yaml"))
        assert sorted(find_finished(recipe, recipe.stages, overwrite=False)) == ["merge", "sft"]

    def test_a_finished_stage_that_is_older_than_its_input_gives_a_warning(
        self, finish: Callable[..., None], capfd: pytest.CaptureFixture[str]
    ) -> None:
        finish("sft/train_results.json", "whole/merge_report.json")
        assert main(["recipe", "recipe.yaml", "--only", "sft", "merge"]) == 0
        assert "warning" not in capfd.readouterr().out
        finish("whole/merge_report.json", "sft/train_results.json")
        assert main(["recipe", "recipe.yaml", "--only", "sft", "merge"]) == 0
        said = capfd.readouterr().out
        assert (
            "warning: stage 'merge' used an older input: sft/train_results.json is newer than whole/merge_report.json\n"
        ) in said

    def test_the_command_to_resume_after_an_overwriting_stage_failed_overwrites_too(
        self, finish: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PYTHONPATH", str(ROOT))  # a stage is a process, and the current folder is not the checkout
        finish("whole/merge_report.json")
        Path("sft").mkdir()  # and no adapter in it
        assert main(["recipe", "recipe.yaml", "--only", "merge", "--overwrite"]) == 2
        said = capfd.readouterr().err
        assert "found no adapter_config.json in it" in said
        assert "resume with: dpo recipe recipe.yaml --from merge --overwrite\n" in said
