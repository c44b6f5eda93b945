"""What the commands on data share: the model, of which the tokenizer alone is read, and the data's flags."""

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
    parser.add_argument("--model_name_or_path", required=True, help="Folder or Hub id; its tokenizer alone is read.")
    parser.add_argument("--trust_remote_code", action="store_true", help="For tokenizers with code of their own.")
    parser.add_argument("--model_revision", help="Branch, tag or commit of a Hub model or adapter.")
    add_fields(parser, DataConfig, "data", leave_out=leave_out)


def data_config(options: argparse.Namespace) -> DataConfig:
    """The data's flags, checked.

    Raises:
        ConfigError: they contradict themselves.
    """
    values = vars(options)
    return DataConfig.from_flags({name: values[name] for name in DataConfig.model_fields if name in values})


def tokenizer_of(options: argparse.Namespace) -> "Tokenizer":
    """The tokenizer of the model that the flags name.

    Raises:
        ModelError: an adapter does not say on which model it stands.
        TokenizerError: there is none.
    """
    from dpo.data.rendering.tokenization import load_tokenizer  # here, so that --help need not wait for tokenizers

    located = locate(options.model_name_or_path, revision=options.model_revision)
    return load_tokenizer(
        located.tokenizer, revision=located.tokenizer_revision, trust_remote_code=options.trust_remote_code
    )
