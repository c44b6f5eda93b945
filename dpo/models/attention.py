"""Which attention a model is loaded with."""

__all__ = ["attention_of", "resolve_attention"]

import importlib.util

import torch
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import is_flash_attn_2_available

from dpo.errors import ConfigError, ModelError, unknown_name

AUTO = "auto"


def attention_of(model: PreTrainedModel) -> str | None:
    """The name of the attention that a model computes with. transformers has a public setter, and no public getter."""
    name: str | None = model.config._attn_implementation
    return name


def resolve_attention(wanted: str, *, half_precision: bool) -> str | None:
    """The attention to load a model with; None leaves it to transformers, which takes SDPA where the model has it.

    Args:
        wanted: "auto", or a name that transformers knows.
        half_precision: Whether activations are float16 or bfloat16, all that flash attention computes in.

    Raises:
        ConfigError: there is no such attention.
        ModelError: an attention is asked for that cannot train here.
    """
    if wanted == AUTO:
        return "flash_attention_2" if half_precision and is_flash_attn_2_available() else None
    known = [AUTO, "eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()]
    if wanted not in known and "/" not in wanted:  # a slash names a kernel of the Hub
        raise ConfigError(unknown_name("--attn_implementation", wanted, known))
    if wanted == "flash_attention_2":
        lacking = [
            what
            for what, is_there in (
                ("a CUDA device", torch.accelerator.is_available()),
                (
                    "the package flash-attn (pip install -r requirements-gpu.txt)",
                    importlib.util.find_spec("flash_attn") is not None,
                ),
                ("--bf16 or --fp16", half_precision),
            )
            if not is_there
        ]
        if lacking:
            raise ModelError(
                f"--attn_implementation {wanted} needs {', '.join(lacking)}.\n"
                "  requirements-gpu.txt says how to install it; --attn_implementation auto does without."
            )
    if wanted == "flex_attention" and not torch.accelerator.is_available():
        raise ModelError(
            f"--attn_implementation {wanted} has no backward pass on a CPU.\n  Pass --attn_implementation auto."
        )
    return wanted
