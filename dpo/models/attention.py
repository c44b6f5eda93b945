"""Chooses the attention implementation that a model is loaded with."""

__all__ = ["attention_of", "resolve_attention"]

import importlib.util

import torch
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import is_flash_attn_2_available

from dpo.errors import ConfigError, ModelError, unknown_name

AUTO = "auto"


def attention_of(model: PreTrainedModel) -> str | None:
    """Return the name of a model's attention implementation. transformers has a public setter but no public getter."""
    name: str | None = model.config._attn_implementation
    return name


def resolve_attention(wanted: str, *, half_precision: bool) -> str | None:
    """Choose the attention implementation that a model is loaded with.

    Args:
        wanted: "auto", a name that transformers knows, or the Hub id of an attention kernel.
        half_precision: Whether activations are float16 or bfloat16, the only dtypes that flash attention supports.

    Returns:
        The value of `attn_implementation`. None leaves the choice to transformers, which uses SDPA if the model
        supports it.

    Raises:
        ConfigError: if no attention implementation has this name.
        ModelError: if the attention implementation cannot train on this machine.
    """
    if wanted == AUTO:
        return "flash_attention_2" if half_precision and is_flash_attn_2_available() else None
    known = [AUTO, "eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()]
    if wanted not in known and "/" not in wanted:  # a name with a slash is a kernel on the Hub
        raise ConfigError(unknown_name("--attn_implementation", wanted, known))
    if wanted == "flash_attention_2":
        missing = [
            requirement
            for requirement, is_met in (
                ("a CUDA device", torch.accelerator.is_available()),
                (
                    "the package flash-attn (pip install -r requirements-gpu.txt)",
                    importlib.util.find_spec("flash_attn") is not None,
                ),
                ("--bf16 or --fp16", half_precision),
            )
            if not is_met
        ]
        if missing:
            raise ModelError(
                f"--attn_implementation {wanted} cannot be used. Missing: {', '.join(missing)}.\n"
                "  requirements-gpu.txt shows how to install flash-attn. Or pass --attn_implementation auto."
            )
    if wanted == "flex_attention" and not torch.accelerator.is_available():
        raise ModelError(
            f"--attn_implementation {wanted} has no backward pass on a CPU.\n  Pass --attn_implementation auto."
        )
    return wanted
