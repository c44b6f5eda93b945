"""Checks the stages of a recipe before the first one starts."""

__all__ = ["check_stages"]

import warnings
from collections.abc import Sequence
from pathlib import Path

from dpo.data.reading.source import check_sources
from dpo.recipe_file import Recipe, Stage, main_argv, what_is_done
from dpo.recipes.stage_commands import StageCommands, check_command
from dpo.training.planning.plan import Before, Unplaced
from dpo.training.settings.flags import parse_flags


def check_stages(
    recipe: Recipe,
    stages: Sequence[Stage],
    commands: StageCommands,
    *,
    flags: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Check stages as far as possible without weights, rows, devices and the outputs of earlier stages.

    Earlier stages may take days, so a misspelled flag in a later stage must be found before they start.

    Args:
        recipe: The whole recipe. A stage may read the model or the rows of the stages before it.
        stages: The stages to check.
        commands: The commands that run the stages that main.py does not run.
        flags: Flags of main.py that take precedence over the recipe's.
        overwrite: Whether the stages may replace their earlier outputs.

    Raises:
        DPOError: if a stage is wrong. The message names the stage.
    """
    words = [(stage, [*main_argv(recipe, stage), *flags]) for stage in recipe.stages]
    for number, (stage, argv) in enumerate(words):
        if stage not in stages:
            continue
        may_replace = overwrite or what_is_done(stage) is not None  # a finished stage is skipped and keeps its output
        if not stage.trains:
            check_command(recipe, stage, commands, overwrite=may_replace)
            continue
        with recipe.naming(stage), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # a run ignores them too
            check_run(argv, before=words[:number], overwrite=may_replace)


def check_run(argv: Sequence[str], *, before: Before, overwrite: bool) -> None:
    """Check a run of main.py.

    Args:
        argv: Its command line.
        before: The stages before it, which may make its model and its rows.
        overwrite: Whether it may replace the content of its output_dir.

    Raises:
        DPOError: if a flag, a model or a source is wrong. The message names it.
    """
    data, flags = parse_flags(list(argv))
    Unplaced(before, **flags | ({"overwrite_output_dir": True} if overwrite else {}))
    planned_outputs = [stage.output for stage, _ in before if stage.output is not None]
    check_sources((*data.datasets, *data.eval_datasets), tuple(map(Path, data.adapter)), planned_outputs)
