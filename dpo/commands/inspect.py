"""`dpo inspect`: show tables and an HTML page about sources or a prepared folder, and check thresholds."""

__all__ = ["add_to"]

import argparse
import sys
from pathlib import Path
from typing import Any

from dpo.commands.common import add_data_flags, data_config, tokenizer_of
from dpo.errors import ConfigError
from dpo.flags import parse_bool
from dpo.folders import check_folder

ABOVE_THRESHOLD = 3
"""The exit code if a measure is above its threshold. Exit code 2 is a user error."""


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "inspect", allow_abbrev=False, help="show statistics and problems of sources or of a prepared folder"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("report.html"), help="The .html file to write. Default: report.html."
    )
    parser.add_argument(
        "--near_duplicates",
        type=parse_bool,
        default=True,
        metavar="BOOL",
        help="Look for near-duplicates. Takes about 1 ms and 6 KiB of memory per pair. Default: True.",
    )
    parser.add_argument(
        "--fail-on",
        "--fail_on",
        nargs="+",
        default=[],
        metavar="NAME>LIMIT",
        help=f"Exit with code {ABOVE_THRESHOLD} if a measure is above its limit: 'tie>5%%' 'leakage>0'. A measure is a "
        "reason for dropped rows or a finding in kept pairs; a name that is both counts both. A limit is a count, or a "
        "share of the rows that were looked at.",
    )
    add_data_flags(parser)
    parser.set_defaults(command=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    # Late imports, since pyarrow, tokenizers and Plotly would slow --help down.
    from dpo.adapters import find_adapters
    from dpo.data.pipeline import open_prepared, prepare
    from dpo.inspection.collection import inspect_pairs
    from dpo.inspection.page import render_page, tokens_of
    from dpo.inspection.tables import tables
    from dpo.inspection.thresholds import check_stage, parse_threshold, reasons_of

    config = data_config(options)
    check_folder("output", options.output.parent)
    if options.output.is_dir() or options.output.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--output {options.output}: expected a file that ends in .html")
    tokenizer = tokenizer_of(options)
    measures = reasons_of(find_adapters(tuple(map(Path, config.adapter))).values())
    if config.prepared is not None:
        prepared = open_prepared(config.prepared_folder, tokenizer, stage=config.stage)
        measures |= prepared.report.total().dropped.keys()
    thresholds = [parse_threshold(text, measures) for text in options.fail_on]
    check_stage(thresholds, config.stage)
    if not options.near_duplicates and any(threshold.measure == "near_duplicate" for threshold in thresholds):
        raise ConfigError(
            "--fail-on near_duplicate: --near_duplicates false turns this measure off.\n"
            "  Leave one of the two flags out."
        )
    if config.prepared is None:
        prepared = prepare(config, tokenizer, progress=sys.stderr.isatty())
    statistics = inspect_pairs(prepared, near=options.near_duplicates)
    found = statistics.measures()
    failures = [failure for threshold in thresholds if (failure := threshold.failure(found))]
    title = config.prepared or ", ".join((*config.datasets, *config.eval_datasets))
    tokens = tokens_of(prepared.train[0], tokenizer.with_control_tokens(prepared.added_tokens))
    page = render_page(statistics, title=title, tokens=tokens, failures=failures)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page, encoding="utf-8")
    content = f"the same tables, with plots, one {prepared.report.noun} as tokens, and example rows"
    print(f"{tables(statistics)}\n\n{options.output}: {content}")
    if thresholds and not failures:
        print(f"within the thresholds: {' '.join(options.fail_on)}")
    if failures:
        print("above the thresholds:\n  " + "\n  ".join(failures), file=sys.stderr)
    return ABOVE_THRESHOLD if failures else 0
