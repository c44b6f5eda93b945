"""`dpo generate`: read prompts, let a model write the rejected answer or both answers, and save the pairs."""

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
        "generate",
        allow_abbrev=False,
        help="let a model write answers for prompts, and save pairs for --datasets triplets=FILE",
    )
    parser.add_argument("--model", required=True, help="Folder or Hub id of a model or LoRA adapter, or 'embedded'.")
    parser.add_argument(
        "--output", type=Path, required=True, help="The .jsonl file to write. If it is incomplete, the run resumes it."
    )
    parser.add_argument("--overwrite", action="store_true", help="Start the file again from the first row.")
    parser.add_argument(
        "--template",
        default="model",
        help="Template for the prompts: 'model' for the model's own, a name in templates/, or a path to a .jinja file. "
        "Default: model.",
    )
    add_fields(parser, DataConfig, "data", leave_out=DataConfig.model_fields.keys() - set(DATA_FLAGS) | {"template"})
    add_fields(parser, GenerationConfig, "generation", leave_out=("model",))
    parser.set_defaults(command=run, parser=parser)


def check(options: argparse.Namespace, *, planned_outputs: Collection[str] = ()) -> tuple[GenerationConfig, DataConfig]:
    """Check the command as far as possible without weights, a network and the outputs of earlier stages.

    Args:
        options: The flags of the command.
        planned_outputs: Files and folders that earlier stages will make.

    Returns:
        The generation flags and the data flags.

    Raises:
        DPOError: if a flag, a model or a source is wrong. The message names it.
    """
    from dpo.data.reading.source import check_sources  # a late import, since it would slow --help down

    values = vars(options)
    config = GenerationConfig.from_flags({name: values[name] for name in GenerationConfig.model_fields})
    data = data_config(options)
    check_output(options.output)
    for name in (config.model, config.reward_model):
        if name is not None and find_output(name, planned_outputs) is None:
            check_model_name(name)
    check_sources(data.datasets, tuple(map(Path, data.adapter)), planned_outputs)
    return config, data


def run(options: argparse.Namespace) -> None:
    config, data = check(options)
    from dpo.generation.run import generate  # a late import, since pyarrow and tokenizers would slow --help down

    done = generate(config, data, options.output, overwrite=options.overwrite)
    print(f"{done.report.table()}\n\n{options.output}: {done.report.pairs['written']:,} pairs")
    if done.seconds:
        speed = done.num_tokens / done.seconds
        print(f"generated {done.num_tokens:,} tokens in {done.seconds:,.0f} s, {speed:,.0f} tokens/s")
    else:
        print("nothing was left to generate")


def check_output(file: Path) -> None:
    """Refuse a file that --datasets triplets=FILE cannot read, or that cannot be created.

    Raises:
        ConfigError: if --output is such a file.
    """
    if file.suffix != ".jsonl" or file.is_dir():
        raise ConfigError(f"--output {file}: expected a file whose name ends in .jsonl")
    check_folder("output", file.parent)
