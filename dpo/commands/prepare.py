"""python -m dpo prepare: sources in; a data set of token ids, the account of its rows and a manifest out."""

__all__ = ["add_to"]

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from dpo.cache import publish
from dpo.data.config import DataConfig
from dpo.data.export import FORMATS, export
from dpo.data.pipeline import prepare
from dpo.data.tokenization import load_tokenizer
from dpo.embedded import find_model
from dpo.errors import ConfigError
from dpo.flags import add_fields


def add_to(commands: Any) -> None:
    parser = commands.add_parser("prepare", help="turn sources into a data set that main.py --prepared trains on")
    parser.add_argument("--model_name_or_path", required=True, help="Folder or Hub id; its tokenizer alone is read.")
    parser.add_argument("--model_revision", help="Branch, tag or commit of a Hub model.")
    parser.add_argument("--output", type=Path, required=True, help="Folder to make.")
    parser.add_argument("--overwrite", action="store_true", help="Replace the folder.")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="arrow",
        help="arrow has token ids and is what main.py reads; jsonl and parquet hold prompt, chosen, rejected as text.",
    )
    add_fields(parser, DataConfig, "data")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    values = vars(options)
    config = DataConfig.from_flags({name: values[name] for name in DataConfig.model_fields})
    if options.output.exists() and not options.overwrite:
        raise ConfigError(f"--output {options.output} exists.\n  Choose another folder, or pass --overwrite.")
    tokenizer = load_tokenizer(find_model(options.model_name_or_path), revision=options.model_revision)
    prepared = prepare(config, tokenizer, progress=sys.stderr.isatty())
    if options.overwrite:
        shutil.rmtree(options.output, ignore_errors=True)
    publish(options.output, lambda folder: export(prepared, folder, options.format))
    print(f"{prepared.report.table()}\n\n{options.output}: {describe(prepared.report.pairs)}")


def describe(pairs: dict[str, int]) -> str:
    return ", ".join(f"{count:,} pairs in {split}" for split, count in pairs.items() if count)
