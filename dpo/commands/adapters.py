"""`dpo adapters`: list the adapters, or check a new one against the adapter contract."""

__all__ = ["add_to"]

import argparse
import json
from pathlib import Path
from textwrap import indent
from typing import Any

from dpo.adapters import find_adapters, load_adapter
from dpo.adapters.base import Adapter
from dpo.errors import AdapterError
from dpo.records import Message, Preference


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "adapters", allow_abbrev=False, help="list the adapters: name, columns, default source and one rendered example"
    )
    parser.add_argument(
        "--adapter", type=Path, nargs="*", default=[], metavar="FILE", help="Python files with more adapters to list."
    )
    parser.add_argument(
        "--check", type=Path, metavar="FILE", help="Check the adapter in this file instead of listing the adapters."
    )
    parser.set_defaults(command=run, parser=parser)


def run(options: argparse.Namespace) -> None:
    if options.check is not None:
        check(options.check)
    else:
        print("\n\n".join(map(describe, find_adapters(tuple(options.adapter)).values())))


def check(file: Path) -> None:
    """Check an adapter against the contract, and print the result.

    Raises:
        AdapterError: if the adapter breaks the contract. The message lists every problem.
    """
    from dpo.data.adapter_checks import NUM_MALFORMED_ROWS, check_adapter

    adapter = load_adapter(file)
    if problems := check_adapter(adapter):
        raise AdapterError(f"{file}:\n" + "\n".join(f"- {problem}" for problem in problems))
    print(f"{adapter.name}: {len(adapter.examples)} examples pass, {NUM_MALFORMED_ROWS} malformed rows were counted")


def describe(adapter: Adapter) -> str:
    """Describe an adapter: name, columns, default source, and its first example that gives a pair, in chatml."""
    no_source = f"no default: pass {adapter.name}=SOURCE"
    lines = [
        adapter.name,
        f"  columns:  {', '.join(adapter.columns)}",
        f"  source:   {f'{adapter.hub_id}, split {adapter.split}' if adapter.hub_id else no_source}",
    ]
    pairs = ((row, pair) for row, given in adapter.examples for pair in given if isinstance(pair, Preference))
    row, preference = next(pairs, ({}, None))
    if preference is None:
        return "\n".join([*lines, "  row:      no example gives a pair"])
    from dpo.data.rendering.template import load_template  # a late import, since jinja2 would slow --help down

    template = load_template("chatml")
    prompt = template.render(preference.prompt, add_generation_prompt=True)
    answers = {
        name: template.render(
            [*preference.prompt, Message(role="assistant", content=text)], add_generation_prompt=False
        )
        for name, text in zip(("chosen", "rejected"), preference.answers, strict=False)
    }
    lines += [f"  row:      {json.dumps(row, ensure_ascii=False)}", "  prompt:", indent(prompt.rstrip("\n"), "    ")]
    for name, text in answers.items():
        lines += [f"  {name}:", indent(text.removeprefix(prompt).rstrip("\n"), "    ")]
    return "\n".join(lines)
