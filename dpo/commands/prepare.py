"""`dpo prepare`: turn sources into a data set of token ids, with its data report and manifest."""

__all__ = ["add_to"]

import argparse
import sys
from pathlib import Path
from typing import Any

from dpo.cache import publish
from dpo.commands.common import add_data_flags, data_config, tokenizer_of
from dpo.errors import ConfigError
from dpo.folders import check_folder

FORMATS = ("arrow", "jsonl", "parquet")


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "prepare", allow_abbrev=False, help="turn sources into a data set that main.py --prepared trains on"
    )
    parser.add_argument("--output", type=Path, required=True, help="Folder to create.")
    parser.add_argument("--overwrite", action="store_true", help="Replace the folder if `dpo prepare` made it earlier.")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="arrow",
        help="arrow contains token ids, and main.py --prepared reads it. jsonl and parquet contain prompt, chosen and "
        "rejected as text; with --stage sft, prompt and chosen.",
    )
    add_data_flags(parser, leave_out=("prepared",))
    parser.set_defaults(command=run, parser=parser)


def run(options: argparse.Namespace) -> None:
    # Late imports, since pyarrow and tokenizers would slow --help down.
    from dpo.data.export import export
    from dpo.data.pipeline import prepare

    config = data_config(options)
    check_output(options.output, overwrite=options.overwrite)
    prepared = prepare(config, tokenizer_of(options), progress=sys.stderr.isatty())
    publish(options.output, lambda folder: export(prepared, folder, options.format), replace=options.overwrite)
    report = prepared.report
    written = ", ".join(f"{count:,} {report.noun}s in {split}" for split, count in report.pairs.items() if count)
    print(f"{report.table()}\n\n{options.output}: {written}")


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be created, or that exists and may not be replaced.

    Raises:
        ConfigError: if --output is such a folder.
    """
    from dpo.data.pipeline import MADE_BY_PREPARE

    check_folder("output", folder)
    if not folder.exists():
        return
    if not overwrite:
        raise ConfigError(f"--output {folder} exists.\n  Choose another folder, or pass --overwrite.")
    if folder.is_symlink() or not all((folder / name).is_file() for name in MADE_BY_PREPARE):
        raise ConfigError(
            f"--overwrite: {folder} was not made by `dpo prepare`, so it was not replaced.\n  Choose another folder."
        )
