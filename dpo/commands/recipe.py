"""python -m dpo recipe: the stages of a recipe in order, each in a process of its own."""

__all__ = ["add_to"]

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dpo
from dpo.errors import ConfigError
from dpo.flags import flag_names
from dpo.recipes import Recipe, Stage, command_argv, command_parser, main_argv, read_recipe, what_is_done


def add_to(commands: Any) -> None:
    parser = commands.add_parser("recipe", allow_abbrev=False, help="run the stages of a YAML file in order")
    parser.add_argument("file", type=Path, metavar="FILE", help="A recipe, such as runs/zephyr_7b.yaml.")
    parser.add_argument(
        "--launcher",
        default=shlex.quote(sys.executable),
        help="What starts main.py: 'deepspeed --num_gpus 8'. Default: this Python.",
    )
    parser.add_argument("--from", dest="first", metavar="STAGE", help="Begin with this stage.")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="Run these stages alone.")
    parser.add_argument("--overwrite", action="store_true", help="Run stages again that are finished already.")
    parser.add_argument("--dry_run", action="store_true", help="Say what each stage would do, and run none.")
    parser.add_argument("--num_devices", type=int, help="Devices that --dry_run plans for. Default: 1.")
    parser.set_defaults(command=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    environment = dict(os.environ)
    from dpo.training.dry_run import show_stages  # here, so that --help need not wait for them
    from dpo.training.stages import check_stages

    recipe = read_recipe(options.file)
    stages = chosen(recipe, options.first, options.only)
    if options.dry_run:
        devices = [] if options.num_devices is None else ["--num_devices", str(options.num_devices)]
        show_stages(recipe, stages, ["--dry_run", *devices])
        return 0
    if options.num_devices is not None:
        raise ConfigError("--num_devices is for --dry_run: the launcher says how many devices a run has.")
    launcher = find_launcher(options.launcher)
    # All before the first one runs, which may take days. A stage that is skipped may have lost what it was made from.
    to_run = [stage for stage in stages if options.overwrite or what_is_done(stage) is None]
    check_stages(recipe, to_run, overwrite=options.overwrite)
    commands = [command_of(recipe, stage, launcher, overwrite=options.overwrite) for stage in stages]
    for number, (stage, command) in enumerate(zip(stages, commands, strict=True), 1):
        place = f"[{number}/{len(stages)}] {stage.name}"
        if not options.overwrite and (done := what_is_done(stage)) is not None:
            print(f"{place} is skipped: {done} is there already (--overwrite runs it again)", flush=True)
            continue
        print(f"{place}: {shlex.join(command)}", flush=True)
        code = subprocess.run(command, env=environment).returncode  # without what libraries set here on their import
        if code:
            print(
                f"error: stage '{stage.name}' ended with exit code {code}.\n"
                f"  When that is mended, go on with: python -m dpo recipe {recipe.file} --from {stage.name}",
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


def command_of(recipe: Recipe, stage: Stage, launcher: Sequence[str], *, overwrite: bool) -> list[str]:
    """What does a stage.

    Raises:
        ConfigError: a command's flags are wrong, or main.py is not to be found.
    """
    if stage.trains:
        again = ["--overwrite_output_dir"] if overwrite else []
        return [*launcher, str(find_main()), *main_argv(recipe, stage), *again]
    again = ["--overwrite"] if overwrite and "overwrite" in flag_names(command_parser(stage.kind)) else []
    return [sys.executable, "-m", "dpo", *command_argv(recipe, stage), *again]


def find_main() -> Path:
    """main.py: beside the package in a checkout, or in the current folder."""
    places = [folder / "main.py" for folder in (Path(dpo.__file__).resolve().parents[1], Path.cwd())]
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(f"there is no main.py, which trains: looked for {' and '.join(map(str, places))}.")
