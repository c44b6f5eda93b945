"""The commands: python -m dpo COMMAND. All start at once; those that use a model load torch when they run."""

__all__ = ["main"]

import os
import signal
import sys
from collections.abc import Sequence

from dpo.commands import adapters, evaluate, generate, inspect, merge, prepare, recipe
from dpo.errors import DPOError
from dpo.flags import FlagParser, check_flags


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0, 2 after a mistake of the user's, which is told on stderr, what a shell expects where a signal
        ended it, or what the command gives.
    """
    parser = FlagParser(
        prog="dpo",
        description="What stands before and behind training: deepspeed main.py --config runs/demo.yaml",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (adapters, prepare, inspect, generate, merge, evaluate, recipe):
        command.add_to(commands)
    try:
        options, unknown = parser.parse_known_args(argv)
        check_flags(options.parser, unknown)
        code = options.command(options) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE  # as any program gives, and no verdict that was never shown
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except DPOError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
