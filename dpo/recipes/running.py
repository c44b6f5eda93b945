"""Runs the stages of a recipe in order, each in its own process."""

__all__ = ["chosen", "command_of", "find_finished", "find_launcher", "find_main", "run_stages"]

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dpo import shipped
from dpo.errors import ConfigError
from dpo.flags import flag_names
from dpo.recipe_file import Recipe, Stage, main_argv, what_is_done
from dpo.recipes.checking import check_stages
from dpo.recipes.stage_commands import StageCommands, command_argv, command_parser


def run_stages(
    recipe: Recipe,
    stages: Sequence[Stage],
    commands: StageCommands,
    *,
    finished: Mapping[str, Path],
    launcher: str,
    overwrite: bool,
    environment: Mapping[str, str],
) -> int:
    """Check all stages, then run them in order until one fails.

    Args:
        recipe: The whole recipe.
        stages: The stages to run.
        commands: The commands that run the stages that main.py does not run.
        finished: The stages to skip: name -> the file that shows that the stage is finished.
        launcher: The command that starts main.py.
        overwrite: Whether the stages may replace their earlier outputs.
        environment: Environment variables of the stages' processes.

    Returns:
        The exit code: 0, or that of the stage that failed.

    Raises:
        DPOError: if a stage cannot run. All stages are checked before the first one starts.
    """
    words = find_launcher(launcher)
    # Skipped stages are not checked: their inputs may be gone by now.
    to_run = [stage for stage in stages if stage.name not in finished]
    check_stages(recipe, to_run, commands, overwrite=overwrite)
    lines = [command_of(recipe, stage, commands, words, overwrite=overwrite) for stage in stages]
    for number, (stage, command) in enumerate(zip(stages, lines, strict=True), 1):
        place = f"[{number}/{len(stages)}] {stage.name}"
        if done := finished.get(stage.name):
            print(f"{place}: skipped, because {done} exists (--overwrite runs the stage again)", flush=True)
            if newer := find_newer(recipe, stage, done):
                print(f"warning: stage '{stage.name}' used an older input: {newer} is newer than {done}", flush=True)
            continue
        print(f"{place}: {shlex.join(command)}", flush=True)
        code = subprocess.run(command, env=environment).returncode
        if code:
            # Without --overwrite, the next run would skip the stage because of the output of an earlier run.
            again = " --overwrite" if overwrite or what_is_done(stage) else ""
            print(
                f"error: stage '{stage.name}' failed with exit code {code}.\n"
                f"  Fix the cause, then resume with: dpo recipe {recipe.file} --from {stage.name}{again}",
                file=sys.stderr,
            )
            return code if code > 0 else 128 - code  # after a signal, the exit code that a shell would give
    return 0


def chosen(recipe: Recipe, first: str | None, only: Sequence[str] | None) -> list[Stage]:
    """Select the stages to run, in the recipe's order.

    Args:
        recipe: The whole recipe.
        first: The value of --from.
        only: The values of --only.

    Raises:
        ConfigError: if a stage is unknown, or both flags are given.
    """
    if first is not None and only is not None:
        raise ConfigError("--from and --only both select the stages to run.\n  Pass only one of them.")
    if only is not None:
        wanted = [recipe.stage(name) for name in only]
        return [stage for stage in recipe.stages if stage in wanted]
    start = 0 if first is None else recipe.stages.index(recipe.stage(first))
    return list(recipe.stages[start:])


def find_finished(recipe: Recipe, stages: Sequence[Stage], *, overwrite: bool) -> dict[str, Path]:
    """Find the finished stages, which a run skips.

    Returns:
        Stage name -> the file that shows that the stage is finished.

    Raises:
        ConfigError: if a stage has an output, and an earlier stage that it reads from is about to run again.
    """
    finished: dict[str, Path] = {}
    to_run: list[Stage] = []
    for stage in stages:
        done = what_is_done(stage)
        changed = next((earlier for earlier in to_run if stage.reads(earlier)), None)
        if not overwrite and changed is not None and not stage.overwrites and (left := done or rows_of(stage)):
            raise ConfigError(
                f"{recipe.where(stage)}: {left} was made from the output of stage '{changed.name}', "
                "which is about to run again.\n"
                f"  Run both stages again, and those after them: dpo recipe {recipe.file} --from {changed.name} "
                f"--overwrite\n  Or rename {stage.output} to keep it, or use --from with a stage after "
                f"'{changed.name}'."
            )
        if done is None or overwrite or changed is not None:
            to_run.append(stage)
        else:
            finished[stage.name] = done
    return finished


def rows_of(stage: Stage) -> Path | None:
    """The file of rows that a generate stage would resume, complete or not; None if there is none."""
    if stage.kind != "generate" or stage.output is None:
        return None
    file = Path(stage.output)
    return file if file.is_file() else None


def find_newer(recipe: Recipe, stage: Stage, done: Path) -> Path | None:
    """Find the mark of an input stage that was finished after this stage.

    Args:
        recipe: The whole recipe.
        stage: A finished stage.
        done: The file that shows that it is finished.

    Returns:
        The file that shows that the input stage is finished; None if no input stage is newer.
    """
    sources = [earlier for earlier in recipe.stages[: recipe.stages.index(stage)] if stage.reads(earlier)]
    marks = [mark for mark in map(what_is_done, sources) if mark is not None]
    return next((mark for mark in marks if mark.stat().st_mtime > done.stat().st_mtime), None)


def find_launcher(text: str) -> list[str]:
    """Split a launcher into words, and find its program on the PATH or in this Python's folder.

    Returns:
        The words, the first one the path of the program.

    Raises:
        ConfigError: if there is no such program, or a quote is not closed.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"--launcher {text}: expected a shell command, found an error in it: {error}") from error
    in_python_folder = Path(sys.executable).parent / words[0] if words else Path()
    program = shutil.which(words[0]) if words else None
    if program is None and not in_python_folder.is_file():
        raise ConfigError(
            f"--launcher '{text}': there is no such program on the PATH or in {Path(sys.executable).parent}.\n"
            "  Check the spelling, or pass the path of the program."
        )
    return [program or str(in_python_folder), *words[1:]]


def command_of(
    recipe: Recipe, stage: Stage, commands: StageCommands, launcher: Sequence[str], *, overwrite: bool
) -> list[str]:
    """The command line that runs a stage.

    Raises:
        ConfigError: if a flag of a command is wrong.
    """
    if stage.trains:
        again = ["--overwrite_output_dir"] if overwrite else []
        return [*launcher, *find_main(), *main_argv(recipe, stage), *again]
    again = ["--overwrite"] if overwrite and "overwrite" in flag_names(command_parser(commands, stage.kind)) else []
    return [sys.executable, "-m", "dpo", *command_argv(recipe, stage, commands), *again]


def find_main() -> list[str]:
    """The script that trains, for a launcher to start: main.py in a checkout, otherwise the package's own.

    It is a script, because every launcher takes one, while each has a different flag for a module.
    """
    main = shipped.ROOT / "main.py"
    if shipped.IS_CHECKOUT and main.is_file():
        return [str(main)]
    return [str(shipped.PACKAGE / "__main__.py"), "train"]
