"""--dry_run of main.py's command line, or of the stages of a recipe."""

__all__ = ["dry_run", "show_stages"]

import shlex
from collections.abc import Sequence

from dpo.recipe_file import Recipe, Stage, first_look, main_argv, read_recipe
from dpo.recipes.checking import check_stages
from dpo.recipes.stage_commands import StageCommands, command_argv
from dpo.training.distributed import is_main_process
from dpo.training.planning.dry_run import show_run


def dry_run(argv: Sequence[str], commands: StageCommands) -> None:
    """Say what main.py would do with a command line: of a recipe all stages, or the one that --stage names.

    Raises:
        DPOError: a mistake that the run would meet too, as far as it can be seen without weights.
    """
    if not is_main_process():  # a launcher's other ranks have nothing to add
        return
    options, others = first_look(argv)
    recipe = None if options.config is None else read_recipe(options.config)
    if recipe is None or recipe.is_one_run:
        show_run(argv)
    else:
        show_stages(recipe, [recipe.stage(options.stage)] if options.stage else recipe.stages, commands, flags=others)


def show_stages(recipe: Recipe, stages: Sequence[Stage], commands: StageCommands, *, flags: Sequence[str]) -> None:
    """Say what stages of a recipe would do, in order.

    Args:
        recipe: All stages. Those before one may make its model or its rows.
        stages: Those to show.
        commands: What does those that main.py does not.
        flags: Of main.py, to go before the recipe's.

    Raises:
        DPOError: as dry_run.
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
