"""Training: what main.py and `dpo train` do."""

__all__ = ["PATIENCE_S", "main"]

import os
import signal
import sys
import time
from collections.abc import Sequence

from dpo.errors import DPOError
from dpo.recipe_file import asks_for_dry_run

PATIENCE_S = 10
"""How long other ranks let the first one speak for them, before their exit makes the launcher end it."""


def main(argv: Sequence[str]) -> int:
    """Run main.py's command line, and give its exit code."""
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
            print("interrupted; --resume_from_checkpoint latest goes on from a checkpoint", file=sys.stderr, flush=True)
        return 128 + signal.SIGINT
    return 0


def run(argv: list[str]) -> None:
    # Torch is imported here, since the processes that prepare rows import main.py, and do without.
    if asks_for_dry_run(argv):
        from dpo.commands.stages import STAGE_COMMANDS
        from dpo.recipes.showing import dry_run

        dry_run(argv, STAGE_COMMANDS)
    else:
        from dpo.training.run import run as run_training

        run_training(argv)
