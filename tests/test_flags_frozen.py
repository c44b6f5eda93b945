"""A new flag is a decision: our flags are listed in tests/golden/flags.txt."""

import argparse
import difflib

from transformers import HfArgumentParser
from trl import DPOConfig

from dpo import cli
from dpo.training.settings.flags import OWN_FLAGS, make_parser
from tests.builders import ROOT

FROZEN = ROOT / "tests" / "golden" / "flags.txt"


def long_options(parser: argparse.ArgumentParser) -> set[str]:
    options = {option for action in parser._actions for option in action.option_strings}
    return {option for option in options if option.startswith("--")} - {"--help"}


def main_flags() -> set[str]:
    """The flags of main.py that TRL and transformers do not have, and those of theirs whose default or help is ours."""
    libraries = {option.replace("-", "_") for option in long_options(HfArgumentParser(DPOConfig))}
    added = {option for option in long_options(make_parser()) if option.replace("-", "_") not in libraries}
    # The parser has --max-length beside --max_length.
    return {f"--{option[2:].replace('-', '_')}" for option in added} | {f"--{name}" for name in OWN_FLAGS}


def our_flags() -> list[str]:
    (commands,) = [action for action in cli.make_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    lines = [f"main.py {flag}" for flag in main_flags()]
    for command, parser in commands.choices.items():
        lines += [f"dpo {command} {flag}" for flag in long_options(parser)]
    return sorted(lines)


def test_no_flag_appears_or_disappears_unnoticed() -> None:
    frozen = FROZEN.read_text(encoding="utf-8").splitlines()
    changed = [*difflib.unified_diff(frozen, our_flags(), lineterm="", n=0)][2:]
    assert changed == [], (
        f"the flags differ from {FROZEN.relative_to(ROOT)}. If this is on purpose, edit that file in the commit that "
        "changes the flags: add the lines marked + and remove the lines marked -.\n" + "\n".join(changed)
    )


def test_the_list_is_sorted_and_has_flags_of_every_program() -> None:
    frozen = FROZEN.read_text(encoding="utf-8").splitlines()
    assert frozen == sorted(set(frozen))
    for flag in ("main.py --loss", "main.py --max_length", "main.py --no_reference_cache", "dpo inspect --fail-on"):
        assert flag in frozen
    assert "main.py --adam_beta2" not in frozen and "main.py --padding_free" not in frozen
