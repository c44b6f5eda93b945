"""Loads weights and tokenizers, for training and for the commands that use a model."""

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
"""File names of an adapter's weights. PEFT uses the first one by default."""


def load_causal_lm(
    located: LocatedModel,
    *,
    dtype: torch.dtype | str = "auto",
    trust_remote_code: bool = False,
    is_trainable: bool = False,
    **options: Any,
) -> "PreTrainedModel | PeftModel":
    """Load a causal language model, with its adapter if it has one.

    Args:
        located: Folders or Hub ids of the model and of its adapter, with their revisions.
        dtype: Dtype of the weights. "auto" keeps the dtype in which they are stored.
        trust_remote_code: Whether to run model code that comes with the weights.
        is_trainable: Whether the adapter's weights require gradients.
        options: Options of from_pretrained, such as attn_implementation, device_map or quantization_config.

    Returns:
        The model, wrapped in a PeftModel if there is an adapter.

    Raises:
        ModelError: if the model or its adapter cannot be loaded.
    """
    if located.adapter is not None:
        check_adapter_weights(located.adapter)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            located.base, revision=located.base_revision, dtype=dtype, trust_remote_code=trust_remote_code, **options
        )
    except (ImportError, OSError, RuntimeError, SafetensorError, ValueError) as error:
        # bitsandbytes raises RuntimeError for a device that it does not support.
        raise ModelError(f"model {located.base} cannot be loaded: {error}") from error
    disable_4_bit_repacking(model)
    if located.adapter is None:
        return model
    from peft import PeftModel  # imported here, because it takes seconds and only adapters need it

    try:
        adapted = PeftModel.from_pretrained(
            model, located.adapter, revision=located.adapter_revision, is_trainable=is_trainable
        )
    except (ImportError, OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise ModelError(f"adapter {located.adapter} cannot be loaded onto {located.base}: {error}") from error
    except KeyError as error:
        raise ModelError(
            f"adapter {located.adapter}: {error} is missing from {ADAPTER_CONFIG}, or is an unknown value there.\n"
            "  Expected the file that PEFT saves, with a peft_type such as LORA."
        ) from error
    adapted.peft_config["default"].revision = located.base_revision  # PEFT saves it when training saves the adapter
    return adapted


def disable_4_bit_repacking(model: PreTrainedModel) -> None:
    """Make 4-bit layers compute the same numbers in evaluation mode as in training mode.

    On a CPU with bfloat16 matrix products, bitsandbytes (0.50) repacks the weights for evaluation, with bfloat16
    constants. The reference model would then differ from the policy, and a layer narrower than a block of constants
    cannot be repacked.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def check_adapter_weights(adapter: str) -> None:
    """Refuse an adapter folder without weights. PEFT would look for the weights on the Hub."""
    folder = Path(adapter)
    if folder.is_dir() and not any((folder / name).exists() for name in ADAPTER_WEIGHTS):
        raise ModelError(
            f"adapter {adapter}: found neither {' nor '.join(ADAPTER_WEIGHTS)} next to {ADAPTER_CONFIG}.\n"
            "  Pass a folder that contains a complete adapter."
        )


def load_chat_tokenizer(located: LocatedModel, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model or an adapter with transformers.

    Args:
        located: Folder or Hub id of the tokenizer, with its revision.
        trust_remote_code: Whether to run tokenizer code that comes with the model.

    Raises:
        TokenizerError: if the tokenizer cannot be loaded.
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
            f"model {located.tokenizer}: {missing}transformers cannot load the tokenizer: {error}"
        ) from error
