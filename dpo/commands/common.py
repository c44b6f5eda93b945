"""Flags that the data commands share: the model, of which only the tokenizer is read, and the data flags."""

__all__ = ["add_data_flags", "data_config", "tokenizer_of"]

import argparse
from collections.abc import Collection
from typing import TYPE_CHECKING

from dpo.data.config import DataConfig
from dpo.flags import add_fields
from dpo.models.locating import locate

if TYPE_CHECKING:
    from dpo.data.rendering.tokenization import Tokenizer


def add_data_flags(parser: argparse.ArgumentParser, *, leave_out: Collection[str] = ()) -> None:
    parser.add_argument(
        "--model_name_or_path", required=True, help="Folder or Hub id of the model. Only its tokenizer is read."
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="Run code that comes with the tokenizer.")
    parser.add_argument("--model_revision", help="Branch, tag or commit of a Hub model or adapter.")
    add_fields(parser, DataConfig, "data", leave_out=leave_out)


def data_config(options: argparse.Namespace) -> DataConfig:
    """Read and check the data flags.

    Raises:
        ConfigError: if the flags contradict each other.
    """
    values = vars(options)
    return DataConfig.from_flags({name: values[name] for name in DataConfig.model_fields if name in values})


def tokenizer_of(options: argparse.Namespace) -> "Tokenizer":
    """Load the tokenizer of the model that the flags name.

    Raises:
        ModelError: if an adapter does not name its base model.
        TokenizerError: if the model has no tokenizer.
    """
    from dpo.data.rendering.tokenization import load_tokenizer  # a late import, since tokenizers would slow --help down

    located = locate(options.model_name_or_path, revision=options.model_revision)
    return load_tokenizer(
        located.tokenizer, revision=located.tokenizer_revision, trust_remote_code=options.trust_remote_code
    )
