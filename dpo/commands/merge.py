"""`dpo merge`: merge a LoRA adapter into its base model, and save the whole model."""

__all__ = ["add_to", "check"]

import argparse
import sys
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo.folders import find_output
from dpo.hub import check_model_name
from dpo.merging.folder import check_output
from dpo.merging.names import locate_base
from dpo.models.embedded import EMBEDDED, HUB_ID

if TYPE_CHECKING:
    from dpo.merging.options import MergeOptions


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "merge", allow_abbrev=False, help="merge a LoRA adapter into its base, shard by shard, and check the logits"
    )
    parser.add_argument("--adapter", required=True, help="Folder or Hub id of the adapter, as PEFT saves it.")
    parser.add_argument("--model", help="Folder or Hub id of the base. Default: the base that the adapter names.")
    parser.add_argument("--output", type=Path, required=True, help="Folder to create.")
    parser.add_argument(
        "--other_base", action="store_true", help="Accept a --model that is not the base that the adapter names."
    )
    parser.add_argument("--overwrite", action="store_true", help="Replace the folder if it contains an earlier merge.")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help="Data type to store the weights in. Default: the base's, for each weight. The merge is in float32.",
    )
    parser.add_argument(
        "--max_shard_size",
        default="5GB",
        help="Size of the largest file. One such shard is in memory at a time. Default: 5GB.",
    )
    parser.add_argument(
        "--check_prompts",
        type=int,
        default=4,
        help="Prompts to compare logits on. The check loads each whole model in float32. 0 skips it. Default: 4.",
    )
    parser.add_argument(
        "--model_revision", help="Branch, tag or commit of a Hub base. Default: the one that the adapter names."
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="Run code that comes with the model.")
    parser.set_defaults(command=run, parser=parser)


def check(options: argparse.Namespace, *, planned_outputs: Collection[str] = ()) -> None:
    """Check the command as far as possible without weights, a network and the outputs of earlier stages.

    Args:
        options: The flags of the command.
        planned_outputs: Files and folders that earlier stages will make.

    Raises:
        DPOError: if a flag or a folder is wrong. The message names it.
    """
    names = [name for name in (options.adapter, options.model) if name is not None]
    for name in names:
        if find_output(name, planned_outputs) is None:
            check_model_name(name)
    check_output(options.output, overwrite=options.overwrite, inputs=names)
    merge_options(options, base=str(options.model)).check()


def merge_options(options: argparse.Namespace, *, base: str) -> "MergeOptions":
    from dpo.merging.options import MergeOptions  # a late import, since huggingface_hub would slow --help down

    values = vars(options) | {"base": base}
    return MergeOptions(**{field.name: values[field.name] for field in fields(MergeOptions)})


def run(options: argparse.Namespace) -> None:
    check(options)
    located = locate_base(
        options.adapter, options.model, other_base=options.other_base, revision=options.model_revision
    )
    inputs = [model for model in (located.base, located.adapter) if model is not None]
    check_output(options.output, overwrite=options.overwrite, inputs=inputs)  # again, now that the base is known

    # Late imports, so that a wrong name is reported before torch is loaded.
    from transformers.utils import logging

    from dpo.merging.run import merge

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    base = HUB_ID if options.model == EMBEDDED else options.model or located.base
    merged = merge(located, merge_options(options, base=base), progress=sys.stderr.isatty())
    print(f"{merged.describe()}\n\n{options.output}")
