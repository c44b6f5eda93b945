"""The command line: `dpo COMMAND`. Every command starts fast, because torch is loaded only when a model is needed."""

__all__ = ["main", "make_parser"]

import os
import signal
import sys
from collections.abc import Sequence

from dpo.commands import adapters, evaluate, generate, inspect, merge, prepare, recipe, train
from dpo.errors import DPOError
from dpo.flags import FlagParser, check_flags


def make_parser() -> FlagParser:
    """The parser of all commands. What it parses has the parser of the given command as `parser`."""
    parser = FlagParser(
        prog="dpo",
        description="Preference tuning, from raw rows to an evaluated model.",
        epilog="Training under a launcher: deepspeed --module dpo train --config runs/demo.yaml, torchrun -m dpo train "
        "..., accelerate launch -m dpo train ...",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (adapters, prepare, inspect, train, generate, merge, evaluate, recipe):
        command.add_to(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after `dpo`. Default: those of this process.

    Returns:
        The exit code: the command's own, where 0 is success; 2 after a user error, which is printed to stderr; or
        128 plus the signal's number after a signal, as shells expect.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    training = train.find_training(words)
    if training is not None:
        return train.main(training)
    parser = make_parser()
    try:
        options, unknown = parser.parse_known_args(words)
        check_flags(options.parser or parser, unknown)
        code = options.command(options) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of stdout, such as head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE  # not 0: the output was not shown in full
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except DPOError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
