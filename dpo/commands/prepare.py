"""python -m dpo prepare: sources in; a data set of token ids, the account of its rows and a manifest out."""

__all__ = ["add_to"]

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from dpo.cache import publish
from dpo.data.config import DataConfig
from dpo.embedded import find_model
from dpo.errors import ConfigError
from dpo.flags import add_fields
from dpo.folders import check_folder

FORMATS = ("arrow", "jsonl", "parquet")


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "prepare", allow_abbrev=False, help="turn sources into a data set that main.py --prepared trains on"
    )
    parser.add_argument("--model_name_or_path", required=True, help="Folder or Hub id; its tokenizer alone is read.")
    parser.add_argument("--trust_remote_code", action="store_true", help="For tokenizers with code of their own.")
    parser.add_argument("--model_revision", help="Branch, tag or commit of a Hub model.")
    parser.add_argument("--output", type=Path, required=True, help="Folder to make.")
    parser.add_argument("--overwrite", action="store_true", help="Replace the folder.")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="arrow",
        help="arrow has token ids and is what main.py reads; jsonl and parquet hold prompt, chosen, rejected as text.",
    )
    add_fields(parser, DataConfig, "data", leave_out=("prepared",))
    parser.set_defaults(command=run, parser=parser)


def run(options: argparse.Namespace) -> None:
    # Here, so that --help need not wait for pyarrow and tokenizers.
    from dpo.data.export import export
    from dpo.data.pipeline import prepare
    from dpo.data.tokenization import load_tokenizer

    values = vars(options)
    config = DataConfig.from_flags({name: values[name] for name in DataConfig.model_fields if name in values})
    check_output(options.output, overwrite=options.overwrite)
    tokenizer = load_tokenizer(
        find_model(options.model_name_or_path),
        revision=options.model_revision,
        trust_remote_code=options.trust_remote_code,
    )
    prepared = prepare(config, tokenizer, progress=sys.stderr.isatty())
    if options.output.exists():
        shutil.rmtree(options.output)
    publish(options.output, lambda folder: export(prepared, folder, options.format))
    print(f"{prepared.report.table()}\n\n{options.output}: {describe(prepared.report.pairs)}")


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be made, or that holds something else than a preparation to be replaced.

    Raises:
        ConfigError: saying what is there.
    """
    from dpo.data.pipeline import MADE_BY_PREPARE

    check_folder("output", folder)
    if not folder.exists():
        return
    if not overwrite:
        raise ConfigError(f"--output {folder} exists.\n  Choose another folder, or pass --overwrite.")
    if folder.is_symlink() or not all((folder / name).is_file() for name in MADE_BY_PREPARE):
        raise ConfigError(
            f"--overwrite: {folder} holds no preparation, and is left as it is.\n  Choose another folder."
        )


def describe(pairs: dict[str, int]) -> str:
    return ", ".join(f"{count:,} pairs in {split}" for split, count in pairs.items() if count)
