"""Stages of a recipe that commands of `python -m dpo` do: their command lines, and their checks."""

__all__ = ["StageCommand", "StageCommands", "check_command", "command_argv", "command_parser"]

import argparse
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from dpo.flags import FlagParser, check_flags, flag_names, flags_to_argv, switch_names
from dpo.recipe_file import Recipe, Stage


class StageCommand(Protocol):
    """A module of dpo.commands that a stage may name."""

    def add_to(self, commands: Any) -> None:
        """Add the command to argparse's subparsers."""

    def check(self, options: argparse.Namespace, *, planned_outputs: Collection[str] = ()) -> Any:
        """Refuse what can be seen to be wrong before earlier stages have made the files and folders in coming."""


StageCommands = Mapping[str, StageCommand]
"""By kind of stage, recipe_file.COMMANDS. Handed down by dpo.commands, which imports this package."""


def command_argv(recipe: Recipe, stage: Stage, commands: StageCommands) -> list[str]:
    """The words behind `python -m dpo` that do a stage, checked by the command's own parser.

    Raises:
        ConfigError: a flag is unknown, missing, or its value is wrong.
    """
    parser = command_parser(commands, stage.kind)
    known = [name for name in flag_names(parser) if name != "help"]
    argv = flags_to_argv(stage.flags, known, where=recipe.where(stage), switches=switch_names(parser))
    with recipe.naming(stage):
        check_flags(parser, parser.parse_known_args(argv)[1])
    return [stage.kind, *argv]


def check_command(recipe: Recipe, stage: Stage, commands: StageCommands, *, overwrite: bool) -> None:
    """Have a command look for what is wrong with a stage, before the stages before it have run.

    Args:
        recipe: Whose earlier stages may make what this one reads.
        stage: One of COMMANDS.
        commands: What does it.
        overwrite: Whether what it has left before may be replaced, or stays because it is not to run.

    Raises:
        DPOError: naming the stage.
    """
    options = command_parser(commands, stage.kind).parse_args(command_argv(recipe, stage, commands)[1:])
    if overwrite and "overwrite" in options:
        options.overwrite = True
    with recipe.naming(stage):
        commands[stage.kind].check(options, planned_outputs=recipe.outputs_before(stage))


def command_parser(commands: StageCommands, kind: str) -> FlagParser:
    """The parser of a command of `python -m dpo`."""
    subparsers = FlagParser(prog="dpo").add_subparsers()
    commands[kind].add_to(subparsers)
    parser: FlagParser = subparsers.choices[kind]
    return parser
