"""Where a model is put, and what it computes in there."""

__all__ = ["choose_device", "computes_bf16", "resolve_dtype"]

import torch
from accelerate.utils import is_bf16_available


def choose_device() -> torch.device:
    """The accelerator where there is one, else the CPU. A build of torch for CUDA may find no GPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """What weights are loaded as.

    Args:
        name: "float32", "bfloat16" or "float16"; or "auto", bfloat16 where an accelerator computes in it, else float32.
        device: Where they go.
    """
    if name == "auto":
        return torch.bfloat16 if device.type != "cpu" and computes_bf16() else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def computes_bf16() -> bool:
    """Whether the accelerator computes in bfloat16 by itself, where it can tell that from emulating it."""
    device = torch.get_device_module()
    if hasattr(device, "is_bf16_supported"):
        try:
            return bool(device.is_bf16_supported(including_emulation=False))
        except TypeError:  # a device that does not emulate
            return bool(device.is_bf16_supported())
    return bool(is_bf16_available())
