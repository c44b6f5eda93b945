"""What costs little is computed again in backward, and not kept: norms, and what the gate of an MLP lets through.

They are a third of what a layer keeps for backward, more where a norm computes in float32 beside bfloat16 weights,
and a few passes over memory to compute. No matrix product is computed twice, as gradient checkpointing would.
Under autocast the weights of down_proj are cast once more.
"""

__all__ = ["recompute_elementwise"]

import inspect
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

GATED_MLP = re.compile(
    r"def forward\(self, (?P<x>\w+)[^)]*\)[^:]*:\s+"
    r"(?:return|(?P<result>\w+) =) "
    r"self\.down_proj\(self\.act_fn\(self\.gate_proj\((?P=x)\)\) \* self\.up_proj\((?P=x)\)\)"
    r"(?:\s+return (?P=result))?\s*"
)
"""The whole forward of the MLP that Llama, Mistral, Qwen, Gemma, Cohere, Granite and most others have."""


def recompute_elementwise(model: nn.Module) -> None:
    """Let a model's norms and gated MLPs keep their inputs for backward alone, of which they compute the rest again.

    Args:
        model: Its results and gradients stay what they are to the bit. A module gets a subclass of its class, as do its
            copies; it cannot be pickled whole any more, its weights can.
    """
    for module in model.modules():
        cls: Any = type(module)
        if "forward" in vars(module):  # a kernel's or accelerate's in the place of the class's
            continue
        if is_gated_mlp(module):
            module.__class__ = subclass(cls, _GatedMLP)
        elif is_norm_in_python(module):
            module.__class__ = subclass(cls, _Norm)


def is_gated_mlp(module: nn.Module) -> bool:
    """Whether a module's forward reads as that of GATED_MLP."""
    if "act_fn" not in dict(module.named_children()) or isinstance(module, _GatedMLP):
        return False
    try:
        source = inspect.getsource(type(module).forward)
    except (OSError, TypeError):  # written nowhere
        return False
    return GATED_MLP.fullmatch(source.strip()) is not None


def is_norm_in_python(module: nn.Module) -> bool:
    """Whether a module is a norm of several operations, each of which keeps something. torch's own keep their input."""
    cls = type(module)
    is_norm = cls.__name__.endswith("Norm") and not any(True for _ in module.children())
    return is_norm and not cls.__module__.startswith("torch.") and not isinstance(module, _Norm)


@cache
def subclass(cls: type, mixin: type) -> type:
    """A mixin before a class, whose name it keeps, for those who look for layers by it."""
    return type(cls.__name__, (mixin, cls), {"__module__": cls.__module__})


def is_plain(layer: nn.Module) -> bool:
    """Whether autograd keeps a layer's input before its product runs, so that checkpointing ends there.

    Not so where an adapter or 4 bits keep it, or where hooks, as ZeRO-3's, would run and not be ended.
    """
    has_hooks = layer._forward_pre_hooks or layer._forward_hooks or "forward" in vars(layer)
    return type(layer) is nn.Linear and not has_hooks


def recompute(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # Nothing here draws random numbers.
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


class _Norm(nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().forward(*args, **kwargs)
        return recompute(super().forward, *args, **kwargs)


class _GatedMLP(nn.Module):
    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module
    act_fn: nn.Module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().forward(*args, **kwargs)
        (states,) = (*args, *kwargs.values())
        gate, up = self.gate_proj(states), self.up_proj(states)
        if is_plain(self.down_proj):
            return recompute(self.close, gate, up)
        return self.down_proj(recompute(self.let_through, gate, up))

    def close(self, gate: torch.Tensor, up: torch.Tensor) -> Any:
        return self.down_proj(self.let_through(gate, up))

    def let_through(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.act_fn(gate) * up
        return result
