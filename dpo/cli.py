"""The data commands: python -m dpo COMMAND. They start at once, without torch, transformers or deepspeed."""

__all__ = ["main"]

import json
import sys
from collections.abc import Sequence
from textwrap import indent

from dpo.adapters import find_adapters
from dpo.adapters.base import Adapter
from dpo.data.template import load_template
from dpo.errors import DPOError
from dpo.flags import FlagParser
from dpo.records import Message, Preference


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0, or 2 after a mistake of the user's, which is told on stderr.
    """
    parser = FlagParser(
        prog="python -m dpo",
        description="Preference data at hand. Training starts with main.py: deepspeed main.py --config runs/demo.yaml",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    adapters = commands.add_parser(
        "adapters", help="list the adapters: name, columns, default source and one rendered example"
    )
    adapters.set_defaults(command=show_adapters)
    try:
        parser.parse_args(argv).command()
    except DPOError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def show_adapters() -> None:
    print("\n\n".join(map(describe, find_adapters().values())))


def describe(adapter: Adapter) -> str:
    """An adapter's name, columns and default source, and its first example that gives a pair, in chatml."""
    lines = [
        adapter.name,
        f"  columns:  {', '.join(adapter.columns)}",
        f"  source:   {adapter.hub_id}, split {adapter.split}",
    ]
    pairs = ((row, pair) for row, given in adapter.examples for pair in given if isinstance(pair, Preference))
    row, preference = next(pairs, ({}, None))
    if preference is None:
        return "\n".join([*lines, "  row:      none of its examples gives a pair"])
    template = load_template("chatml")
    prompt = template.render(preference.prompt, add_generation_prompt=True)
    answers = {
        name: template.render(
            [*preference.prompt, Message(role="assistant", content=text)], add_generation_prompt=False
        )
        for name, text in (("chosen", preference.chosen), ("rejected", preference.rejected))
    }
    lines += [f"  row:      {json.dumps(row, ensure_ascii=False)}", "  prompt:", indent(prompt.rstrip("\n"), "    ")]
    for name, text in answers.items():
        lines += [f"  {name}:", indent(text.removeprefix(prompt).rstrip("\n"), "    ")]
    return "\n".join(lines)
