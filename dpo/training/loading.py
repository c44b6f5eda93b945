"""Weights into memory, for training and for the commands that use a model."""

__all__ = ["load_causal_lm", "load_chat_tokenizer"]

from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from dpo.errors import ModelError, TokenizerError
from dpo.models import LocatedModel

if TYPE_CHECKING:
    from peft import PeftModel


def load_causal_lm(
    located: LocatedModel,
    *,
    dtype: torch.dtype | str = "auto",
    trust_remote_code: bool = False,
    is_trainable: bool = False,
    **options: Any,
) -> "PreTrainedModel | PeftModel":
    """A causal language model, with its adapter where it has one.

    Args:
        located: Where it lies, on the Hub at which revision.
        dtype: Of the weights; "auto" is as they are stored.
        trust_remote_code: For models with code of their own.
        is_trainable: Whether an adapter's weights take gradients.
        options: Of from_pretrained, such as attn_implementation, device_map or quantization_config.

    Raises:
        ModelError: it cannot be loaded.
    """
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            located.base, revision=located.base_revision, dtype=dtype, trust_remote_code=trust_remote_code, **options
        )
    except (ImportError, OSError, RuntimeError, SafetensorError, ValueError) as error:
        # A RuntimeError is also what bitsandbytes says of a device that it does not know.
        raise ModelError(f"model {located.base}: cannot be loaded: {error}") from error
    if located.adapter is None:
        return model
    from peft import PeftModel  # seconds, for adapters alone

    try:
        adapted = PeftModel.from_pretrained(
            model, located.adapter, revision=located.adapter_revision, is_trainable=is_trainable
        )
    except (ImportError, OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise ModelError(f"adapter {located.adapter}: cannot be loaded onto {located.base}: {error}") from error
    adapted.peft_config["default"].revision = located.base_revision  # which training on saves with the adapter
    return adapted


def load_chat_tokenizer(located: LocatedModel, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Transformers' tokenizer of a model or an adapter.

    Raises:
        TokenizerError: it cannot be loaded.
    """
    try:
        return AutoTokenizer.from_pretrained(
            located.tokenizer, revision=located.tokenizer_revision, trust_remote_code=trust_remote_code
        )
    except (ImportError, OSError, ValueError) as error:
        raise TokenizerError(f"model {located.tokenizer}: transformers cannot load the tokenizer: {error}") from error
