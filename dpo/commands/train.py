"""Training, as main.py and `dpo train` run it."""

__all__ = ["PATIENCE_S", "main"]

import os
import signal
import sys
import time
from collections.abc import Sequence

from dpo.errors import DPOError
from dpo.recipe_file import asks_for_dry_run

PATIENCE_S = 10
"""How long the other ranks wait before they exit. Their exit makes the launcher stop rank 0, which prints the error."""


def main(argv: Sequence[str]) -> int:
    """Run the command line of main.py.

    Args:
        argv: The words after main.py.

    Returns:
        The exit code: 0, 2 after a user error, which is printed to stderr, or 130 after an interrupt.
    """
    try:
        run(list(argv))
    except DPOError as error:
        rank = os.environ.get("RANK", "0")
        if rank != "0":
            time.sleep(PATIENCE_S)
        print(f"error: {error}" if rank == "0" else f"error on rank {rank}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            message = "interrupted. --resume_from_checkpoint latest resumes from the last complete checkpoint."
            print(message, file=sys.stderr, flush=True)
        return 128 + signal.SIGINT
    return 0


def run(argv: list[str]) -> None:
    # Torch is imported here because the processes that prepare rows import main.py too, and do not need torch.
    if asks_for_dry_run(argv):
        from dpo.commands.stages import STAGE_COMMANDS
        from dpo.recipes.showing import dry_run

        dry_run(argv, STAGE_COMMANDS)
    else:
        from dpo.training.run import run as run_training

        run_training(argv)
