"""Runs the stages of a recipe in order, each in a process of its own."""

__all__ = ["chosen", "command_of", "find_finished", "find_launcher", "find_main", "run_stages"]

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import dpo
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
        recipe: All stages.
        stages: Those to run.
        commands: What does those that main.py does not.
        finished: What shows that a stage is finished, by the name of each that is to be skipped.
        launcher: What starts main.py.
        overwrite: Whether stages may replace what they have left before.
        environment: Of their processes.

    Returns:
        The exit code: that of the stage that failed, or 0.

    Raises:
        DPOError: a stage cannot run, which is found before the first one starts.
    """
    words = find_launcher(launcher)
    # All before the first one runs, which may take days. A stage that is skipped may have lost what it was made from.
    to_run = [stage for stage in stages if stage.name not in finished]
    check_stages(recipe, to_run, commands, overwrite=overwrite)
    lines = [command_of(recipe, stage, commands, words, overwrite=overwrite) for stage in stages]
    for number, (stage, command) in enumerate(zip(stages, lines, strict=True), 1):
        place = f"[{number}/{len(stages)}] {stage.name}"
        if done := finished.get(stage.name):
            print(f"{place} is skipped: {done} is there already (--overwrite runs it again)", flush=True)
            if newer := find_newer(recipe, stage, done):
                print(f"warning: {newer} is newer, from which stage '{stage.name}' was made", flush=True)
            continue
        print(f"{place}: {shlex.join(command)}", flush=True)
        code = subprocess.run(command, env=environment).returncode
        if code:
            # What it left another time would be taken for this time's.
            again = " --overwrite" if overwrite or what_is_done(stage) else ""
            print(
                f"error: stage '{stage.name}' ended with exit code {code}.\n"
                f"  When that is mended, go on with: dpo recipe {recipe.file} --from {stage.name}{again}",
                file=sys.stderr,
            )
            return code if code > 0 else 128 - code  # a signal's number, as shells give it
    return 0


def chosen(recipe: Recipe, first: str | None, only: Sequence[str] | None) -> list[Stage]:
    """The stages to run, in the recipe's order.

    Raises:
        ConfigError: a stage is unknown, or both flags are given.
    """
    if first is not None and only is not None:
        raise ConfigError("--from and --only both say which stages to run: pass one or the other.")
    if only is not None:
        wanted = [recipe.stage(name) for name in only]
        return [stage for stage in recipe.stages if stage in wanted]
    start = 0 if first is None else recipe.stages.index(recipe.stage(first))
    return list(recipe.stages[start:])


def find_finished(recipe: Recipe, stages: Sequence[Stage], *, overwrite: bool) -> dict[str, Path]:
    """What shows that a stage is finished, by the name of each that is to be skipped.

    Raises:
        ConfigError: a stage has left what it made from what another one is about to make anew.
    """
    finished: dict[str, Path] = {}
    to_run: list[Stage] = []
    for stage in stages:
        done = what_is_done(stage)
        changed = next((earlier for earlier in to_run if stage.reads(earlier)), None)
        if not overwrite and changed is not None and not stage.overwrites and (left := done or rows_of(stage)):
            raise ConfigError(
                f"{recipe.where(stage)}: {left} was made from what stage '{changed.name}' is about to make anew.\n"
                f"  Make both anew, and what follows: dpo recipe {recipe.file} --from {changed.name} "
                f"--overwrite\n  Or keep {stage.output} by another name, or begin behind '{changed.name}' with --from."
            )
        if done is None or overwrite or changed is not None:
            to_run.append(stage)
        else:
            finished[stage.name] = done
    return finished


def rows_of(stage: Stage) -> Path | None:
    """The rows that a stage has left, whole or in part, with which it would go on."""
    if stage.kind != "generate" or stage.output is None:
        return None
    file = Path(stage.output)
    return file if file.is_file() else None


def find_newer(recipe: Recipe, stage: Stage, done: Path) -> Path | None:
    """What shows that a stage which this one reads was finished after it."""
    sources = [earlier for earlier in recipe.stages[: recipe.stages.index(stage)] if stage.reads(earlier)]
    marks = [mark for mark in map(what_is_done, sources) if mark is not None]
    return next((mark for mark in marks if mark.stat().st_mtime > done.stat().st_mtime), None)


def find_launcher(text: str) -> list[str]:
    """The words of a launcher, its program by its path: on PATH, or beside this Python.

    Raises:
        ConfigError: there is no such program, or a quote is left open.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"--launcher {text}: expected words as a shell has them, found: {error}") from error
    beside = Path(sys.executable).parent / words[0] if words else Path()
    program = shutil.which(words[0]) if words else None
    if program is None and not beside.is_file():
        raise ConfigError(f"--launcher '{text}': there is no such program on the PATH, nor beside {sys.executable}.")
    return [program or str(beside), *words[1:]]


def command_of(
    recipe: Recipe, stage: Stage, commands: StageCommands, launcher: Sequence[str], *, overwrite: bool
) -> list[str]:
    """What does a stage.

    Raises:
        ConfigError: a command's flags are wrong, or main.py is not to be found.
    """
    if stage.trains:
        again = ["--overwrite_output_dir"] if overwrite else []
        return [*launcher, str(find_main()), *main_argv(recipe, stage), *again]
    again = ["--overwrite"] if overwrite and "overwrite" in flag_names(command_parser(commands, stage.kind)) else []
    return [sys.executable, "-m", "dpo", *command_argv(recipe, stage, commands), *again]


def find_main() -> Path:
    """main.py: beside the package in a checkout, or in the current folder."""
    places = [folder / "main.py" for folder in (Path(dpo.__file__).resolve().parents[1], Path.cwd())]
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(f"there is no main.py, which trains: looked for {' and '.join(map(str, places))}.")
