"""The commands that can be stages of a recipe, by the names in recipe_file.COMMANDS."""

__all__ = ["STAGE_COMMANDS"]

from typing import TYPE_CHECKING

from dpo.commands import evaluate, generate, merge

if TYPE_CHECKING:
    from dpo.recipes.stage_commands import StageCommands

STAGE_COMMANDS: "StageCommands" = {"merge": merge, "generate": generate, "evaluate": evaluate}
