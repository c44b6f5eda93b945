"""Command lines and checks of the stages that a command of `dpo` runs."""

__all__ = ["StageCommand", "StageCommands", "check_command", "command_argv", "command_parser"]

import argparse
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from dpo.flags import FlagParser, check_flags, flag_names, flags_to_argv, switch_names
from dpo.recipe_file import Recipe, Stage


class StageCommand(Protocol):
    """A module of dpo.commands that runs a kind of stage."""

    def add_to(self, commands: Any) -> None:
        """Add the command to argparse's subparsers."""

    def check(self, options: argparse.Namespace, *, planned_outputs: Collection[str] = ()) -> Any:
        """Check the command before earlier stages have made the files and folders in planned_outputs."""


StageCommands = Mapping[str, StageCommand]
"""Kind of stage, one of recipe_file.COMMANDS -> its command. An argument, since dpo.commands imports this package."""


def command_argv(recipe: Recipe, stage: Stage, commands: StageCommands) -> list[str]:
    """The words after `dpo` that run a stage, checked by the command's own parser.

    Raises:
        ConfigError: if a flag is unknown or missing, or its value is wrong.
    """
    parser = command_parser(commands, stage.kind)
    known = [name for name in flag_names(parser) if name != "help"]
    argv = flags_to_argv(stage.flags, known, where=recipe.where(stage), switches=switch_names(parser))
    with recipe.naming(stage):
        check_flags(parser, parser.parse_known_args(argv)[1])
    return [stage.kind, *argv]


def check_command(recipe: Recipe, stage: Stage, commands: StageCommands, *, overwrite: bool) -> None:
    """Let a command check a stage before the earlier stages have run.

    Args:
        recipe: The whole recipe. Earlier stages may make what this stage reads.
        stage: A stage whose kind is in recipe_file.COMMANDS.
        commands: The commands, by kind of stage.
        overwrite: Whether an existing output is acceptable: the stage may replace it, or is skipped.

    Raises:
        DPOError: if the stage is wrong. The message names the stage.
    """
    options = command_parser(commands, stage.kind).parse_args(command_argv(recipe, stage, commands)[1:])
    if overwrite and "overwrite" in options:
        options.overwrite = True
    with recipe.naming(stage):
        commands[stage.kind].check(options, planned_outputs=recipe.outputs_before(stage))


def command_parser(commands: StageCommands, kind: str) -> FlagParser:
    """The parser of a command of `dpo`."""
    subparsers = FlagParser(prog="dpo").add_subparsers()
    commands[kind].add_to(subparsers)
    parser: FlagParser = subparsers.choices[kind]
    return parser
