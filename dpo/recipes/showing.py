"""Prints what a command line of main.py, or the stages of a recipe, would do (--dry_run)."""

__all__ = ["dry_run", "show_stages"]

import shlex
from collections.abc import Sequence

from dpo.recipe_file import Recipe, Stage, first_look, main_argv, read_recipe
from dpo.recipes.checking import check_stages
from dpo.recipes.stage_commands import StageCommands, command_argv
from dpo.training.distributed import is_main_process
from dpo.training.planning.dry_run import show_run


def dry_run(argv: Sequence[str], commands: StageCommands) -> None:
    """Print what main.py would do with a command line.

    For a recipe, print all stages, or only the stage that --stage names.

    Args:
        argv: The words after main.py.
        commands: The commands that run the stages that main.py does not run.

    Raises:
        DPOError: if the run would fail with this error too, as far as this can be checked without weights.
    """
    if not is_main_process():  # print once, not once per rank
        return
    options, others = first_look(argv)
    recipe = None if options.config is None else read_recipe(options.config)
    if recipe is None or recipe.is_one_run:
        show_run(argv)
    else:
        show_stages(recipe, [recipe.stage(options.stage)] if options.stage else recipe.stages, commands, flags=others)


def show_stages(recipe: Recipe, stages: Sequence[Stage], commands: StageCommands, *, flags: Sequence[str]) -> None:
    """Print what stages of a recipe would do, in order.

    Args:
        recipe: The whole recipe. A stage may read the model or the rows of the stages before it.
        stages: The stages to show.
        commands: The commands that run the stages that main.py does not run.
        flags: Flags of main.py that take precedence over the recipe's.

    Raises:
        DPOError: as in dry_run.
    """
    check_stages(recipe, stages, commands, flags=flags)
    words = [(stage, [*main_argv(recipe, stage), *flags]) for stage in recipe.stages]
    for number, (stage, argv) in enumerate(words):
        if stage not in stages:
            continue
        print(f"\n== {stage.name}: stage {number + 1} of {len(recipe.stages)} in {recipe.file}", flush=True)
        if not stage.trains:
            print(f"would run: {shlex.join(['dpo', *command_argv(recipe, stage, commands)])}")
            continue
        with recipe.naming(stage):
            show_run(argv, before=words[:number])
