"""Weights into memory, for training and for the commands that use a model."""

__all__ = ["load_causal_lm", "load_chat_tokenizer"]

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from dpo.errors import ModelError, TokenizerError
from dpo.folders import similar_path
from dpo.models.locating import ADAPTER_CONFIG, LocatedModel

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""What PEFT saves an adapter's weights as, the first unless it is told otherwise."""


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
    if located.adapter is not None:
        check_adapter_weights(located.adapter)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            located.base, revision=located.base_revision, dtype=dtype, trust_remote_code=trust_remote_code, **options
        )
    except (ImportError, OSError, RuntimeError, SafetensorError, ValueError) as error:
        # A RuntimeError is also what bitsandbytes says of a device that it does not know.
        raise ModelError(f"model {located.base}: cannot be loaded: {error}") from error
    compute_4_bits_alike(model)
    if located.adapter is None:
        return model
    from peft import PeftModel  # seconds, for adapters alone

    try:
        adapted = PeftModel.from_pretrained(
            model, located.adapter, revision=located.adapter_revision, is_trainable=is_trainable
        )
    except (ImportError, OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise ModelError(f"adapter {located.adapter}: cannot be loaded onto {located.base}: {error}") from error
    except KeyError as error:
        raise ModelError(
            f"adapter {located.adapter}: {ADAPTER_CONFIG} has {error} missing or unknown.\n"
            "  Expected the file as PEFT saves it, with a peft_type such as LORA."
        ) from error
    adapted.peft_config["default"].revision = located.base_revision  # which training on saves with the adapter
    return adapted


def compute_4_bits_alike(model: PreTrainedModel) -> None:
    """Have 4-bit layers compute in evaluation what they compute in training.

    On a CPU with bfloat16 products bitsandbytes (0.50) repacks their weights for evaluation, with bfloat16 constants: a
    reference would differ from its policy, and a layer narrower than a block of constants cannot be repacked.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def check_adapter_weights(adapter: str) -> None:
    """Refuse a folder without them, for which PEFT would ask the Hub."""
    folder = Path(adapter)
    if folder.is_dir() and not any((folder / name).exists() for name in ADAPTER_WEIGHTS):
        raise ModelError(
            f"adapter {adapter}: found neither {' nor '.join(ADAPTER_WEIGHTS)} beside {ADAPTER_CONFIG}.\n"
            "  Name a folder that an adapter was saved to whole."
        )


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
        missing = (
            "" if Path(located.tokenizer).exists() else f"there is no such folder.{similar_path(located.tokenizer)}\n  "
        )
        raise TokenizerError(
            f"model {located.tokenizer}: {missing}Transformers cannot load the tokenizer: {error}"
        ) from error
