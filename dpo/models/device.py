"""Chooses the device of a model and the dtype of its weights."""

__all__ = ["choose_device", "computes_bf16", "resolve_dtype"]

import torch
from accelerate.utils import is_bf16_available


def choose_device() -> torch.device:
    """Return the accelerator, or the CPU if there is none. A CUDA build of torch without a GPU gives the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype that weights are loaded in.

    Args:
        name: "float32", "bfloat16", "float16" or "auto". "auto" is bfloat16 on an accelerator that supports it
            natively, and float32 otherwise.
        device: The device of the weights.
    """
    if name == "auto":
        return torch.bfloat16 if device.type != "cpu" and computes_bf16() else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def computes_bf16() -> bool:
    """Whether the accelerator supports bfloat16 natively. Emulation does not count, if the accelerator reports it."""
    device = torch.get_device_module()
    if hasattr(device, "is_bf16_supported"):
        try:
            return bool(device.is_bf16_supported(including_emulation=False))
        except TypeError:  # this device type has no emulation, so the argument does not exist
            return bool(device.is_bf16_supported())
    return bool(is_bf16_available())
