"""python -m dpo inspect: sources or a prepared folder in; tables, a page and, on request, a verdict out."""

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
"""The exit code where a measure is above its threshold. 2 is a mistake of the user's."""


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "inspect", allow_abbrev=False, help="show what sources or a prepared folder are made of, and what is wrong"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("report.html"), help="The page, a .html file. Default: report.html."
    )
    parser.add_argument(
        "--near_duplicates",
        type=parse_bool,
        default=True,
        metavar="BOOL",
        help="Whether to look for them, about a millisecond and 6 KiB of memory a pair. Default: True.",
    )
    parser.add_argument(
        "--fail-on",
        "--fail_on",
        nargs="+",
        default=[],
        metavar="NAME>LIMIT",
        help=f"Exit with code {ABOVE_THRESHOLD} where a measure is above its limit, a count or a share of the rows "
        "looked at: 'tie>5%%' 'leakage>0'. Every reason that rows are dropped for is a measure, and what is found in "
        "kept pairs: both count.",
    )
    add_data_flags(parser)
    parser.set_defaults(command=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    # Here, so that --help need not wait for pyarrow, tokenizers and Plotly.
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
        raise ConfigError("--fail-on near_duplicate: they are not looked for with --near_duplicates false.")
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
    more = f"the same with plots, one {prepared.report.noun} as tokens, and rows to look at"
    print(f"{tables(statistics)}\n\n{options.output}: {more}")
    if thresholds and not failures:
        print(f"within the thresholds: {' '.join(options.fail_on)}")
    if failures:
        print("above the thresholds:\n  " + "\n  ".join(failures), file=sys.stderr)
    return ABOVE_THRESHOLD if failures else 0
