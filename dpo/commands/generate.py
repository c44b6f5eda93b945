"""python -m dpo generate: prompts in; pairs out whose rejected answer, or whose both answers, a model wrote."""

__all__ = ["add_to", "check"]

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dpo.commands.common import data_config
from dpo.data.config import DataConfig
from dpo.errors import ConfigError
from dpo.flags import add_fields
from dpo.folders import check_folder, find_output
from dpo.generation.config import DATA_FLAGS, GenerationConfig
from dpo.hub import check_model_name


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "generate", allow_abbrev=False, help="have a model write the answers that pairs lack, for triplets=FILE"
    )
    parser.add_argument("--model", required=True, help="Folder or Hub id, of a LoRA adapter too, or 'embedded'.")
    parser.add_argument(
        "--output", type=Path, required=True, help="File to make, .jsonl. One that was stopped goes on."
    )
    parser.add_argument("--overwrite", action="store_true", help="Begin the file anew.")
    parser.add_argument(
        "--template",
        default="model",
        help="What renders the prompts: 'model' for the model's own, a name in templates/, or a path to a .jinja file. "
        "Default: model.",
    )
    add_fields(parser, DataConfig, "data", leave_out=DataConfig.model_fields.keys() - set(DATA_FLAGS) | {"template"})
    add_fields(parser, GenerationConfig, "generation", leave_out=("model",))
    parser.set_defaults(command=run, parser=parser)


def check(options: argparse.Namespace, *, coming: Collection[str] = ()) -> tuple[GenerationConfig, DataConfig]:
    """Refuse what can be seen to be wrong without weights, a network and what is yet to be made.

    Args:
        options: The command's.
        coming: Files and folders that are made before the command runs.

    Returns:
        The flags of generation, and those of the data.

    Raises:
        DPOError: naming the flag, the model or the source.
    """
    from dpo.data.reading.source import check_sources  # here, so that --help need not wait for it

    values = vars(options)
    config = GenerationConfig.from_flags({name: values[name] for name in GenerationConfig.model_fields})
    data = data_config(options)
    check_output(options.output)
    for name in (config.model, config.reward_model):
        if name is not None and find_output(name, coming) is None:
            check_model_name(name)
    check_sources(data.datasets, tuple(map(Path, data.adapter)), coming)
    return config, data


def run(options: argparse.Namespace) -> None:
    config, data = check(options)
    from dpo.generation.run import generate  # here, so that --help need not wait for pyarrow and tokenizers

    done = generate(config, data, options.output, overwrite=options.overwrite)
    print(f"{done.report.table()}\n\n{options.output}: {done.report.pairs['written']:,} pairs")
    if done.seconds:
        speed = done.num_tokens / done.seconds
        print(f"generated {done.num_tokens:,} tokens in {done.seconds:,.0f} s, {speed:,.0f} tokens/s")
    else:
        print("nothing was left to generate")


def check_output(file: Path) -> None:
    """Refuse a file that triplets=FILE would not read, or that cannot be made.

    Raises:
        ConfigError: saying what is expected.
    """
    if file.suffix != ".jsonl" or file.is_dir():
        raise ConfigError(f"--output {file}: expected a file whose name ends in .jsonl")
    check_folder("output", file.parent)
