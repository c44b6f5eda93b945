"""What can be seen to be wrong with stages of a recipe before the first of them starts."""

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
    """Refuse what is wrong with stages, as far as it shows without weights, rows, devices and what earlier
    stages make: those may take days, at whose end a misspelled flag should not be what is found.

    Args:
        recipe: All stages. Those before one may make its model or its rows.
        stages: Those to check.
        commands: What does those that main.py does not.
        flags: Of main.py, to go before the recipe's.
        overwrite: Whether the stages may replace what they have left before.

    Raises:
        DPOError: naming the stage.
    """
    words = [(stage, [*main_argv(recipe, stage), *flags]) for stage in recipe.stages]
    for number, (stage, argv) in enumerate(words):
        if stage not in stages:
            continue
        may_replace = overwrite or what_is_done(stage) is not None  # a finished stage is left alone
        if not stage.trains:
            check_command(recipe, stage, commands, overwrite=may_replace)
            continue
        with recipe.naming(stage), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # as in a run
            check_run(argv, before=words[:number], overwrite=may_replace)


def check_run(argv: Sequence[str], *, before: Before, overwrite: bool) -> None:
    """Refuse what is wrong with a run of main.py.

    Args:
        argv: Its command line.
        before: What may make its model and its rows.
        overwrite: Whether it may replace what its output_dir holds.

    Raises:
        DPOError: naming the flag, the model or the source.
    """
    data, flags = parse_flags(list(argv))
    Unplaced(before, **flags | ({"overwrite_output_dir": True} if overwrite else {}))
    coming = [stage.output for stage, _ in before if stage.output is not None]
    check_sources((*data.datasets, *data.eval_datasets), tuple(map(Path, data.adapter)), coming)
