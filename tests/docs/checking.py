"""Checks of the blocks that are not executed: their flags, commands and files exist."""

import ast
import itertools
from pathlib import Path

from dpo import cli
from dpo.errors import DPOError
from dpo.flags import check_flags
from dpo.training.settings.checks import REFUSED
from dpo.training.settings.flags import make_parser
from tests.builders import ROOT
from tests.docs.blocks import Block
from tests.docs.shell import simple_commands, split_commands

CHECKOUT_FOLDERS = ("runs/", "ds_configs/", "samples/", "templates/")


def problem_of(block: Block) -> str | None:
    """What is wrong with a block, found without executing it; None if nothing is."""
    try:
        check_block(block)
    except (DPOError, ValueError, SyntaxError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def check_block(block: Block) -> None:
    """Check the syntax of Python, and in a shell block the command lines of main.py and dpo.

    Raises:
        ConfigError, ValueError, SyntaxError: a flag, a command, a value or a file does not exist.
    """
    if block.language == "python":
        ast.parse(block.text)
        return
    for command in split_commands(block.text):
        for words in simple_commands(command):
            check_command(words)


def check_command(words: list[str]) -> None:
    """Check one command line of main.py or dpo. Other programs pass."""
    if words[:3] == ["python", "-m", "dpo"]:
        words = words[2:]
    neighbours = list(itertools.pairwise(words))
    if "main.py" in words:
        check_main(words[words.index("main.py") + 1 :])
    elif ("dpo", "train") in neighbours:  # under a launcher too: torchrun -m dpo train
        check_main(words[neighbours.index(("dpo", "train")) + 2 :])
    elif words[0] == "dpo":
        options, unknown = cli.make_parser().parse_known_args(words[1:])
        check_flags(options.parser, unknown)
    for word in words:
        if word.startswith(CHECKOUT_FOLDERS) and not (ROOT / Path(word)).exists():
            raise ValueError(f"{word} does not exist")


def check_main(argv: list[str]) -> None:
    parser = make_parser()
    _, unknown = parser.parse_known_args(argv)
    check_flags(parser, unknown)
    for name, reason in REFUSED.items():
        if f"--{name}" in argv:
            raise ValueError(f"--{name} is refused: {reason}")
