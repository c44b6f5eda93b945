"""Training, as main.py and `dpo train` run it."""

__all__ = ["PATIENCE_S", "add_to", "find_training", "main"]

import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from dpo.errors import DPOError
from dpo.recipe_file import asks_for_dry_run

PATIENCE_S = 10
"""How long the other ranks wait before they exit. Their exit makes the launcher stop rank 0, which prints the error."""

NAME = "train"
LOCAL_RANK = re.compile(r"--local[_-]rank=\d+")
"""What `deepspeed --module dpo train` puts behind dpo, and so before train."""


def add_to(commands: Any) -> None:
    """List the command. find_training takes its words, because a parser of its flags would have to import torch."""
    parser = commands.add_parser(NAME, add_help=False, help="train a model; the same as main.py in a checkout")
    parser.set_defaults(command=lambda _: main([]), parser=None)


def find_training(argv: Sequence[str]) -> list[str] | None:
    """The words for main, unchanged, if a command line of dpo starts a training run; otherwise None.

    ["--local_rank=1", "train", "--config", "run.yaml"] gives ["--local_rank=1", "--config", "run.yaml"].
    """
    before = [word for word in argv[:1] if LOCAL_RANK.fullmatch(word)]
    command, *words = argv[len(before) :] or [""]
    return [*before, *words] if command == NAME else None


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
