"""Checks before the first step that the packed forward and the model's own forward give the same numbers."""

__all__ = ["check_forward"]

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from dpo.engine.forward import TOLERANCE, PackedForward
from dpo.engine.packing import pack_pairs
from dpo.errors import ModelError


def check_forward(
    forward: PackedForward, model: nn.Module, pair: Mapping[str, Any], *, device: torch.device, dtype: torch.dtype
) -> None:
    """Compare the log-probabilities of one pair: packed, and by the model's own forward.

    Args:
        forward: The model's packed forward.
        model: The model, wrapped or not.
        pair: Token ids of the pair.
        device: The device of packs.
        dtype: The dtype that the model computes in. It selects the tolerance.

    Raises:
        ModelError: if the two differ, or the model's own forward gives NaN or infinite values.
    """
    was_training = model.training
    model.eval()
    packed = forward.logps(model, pack_pairs([pair], [0]).to(device))
    plain = forward.plain_logps(model, dict(pair))
    model.train(was_training)
    if not plain.isfinite().all():
        overflow = " or overflow in float16: pass --bf16 true instead of --fp16" if dtype == torch.float16 else ""
        raise ModelError(
            f"the model's own forward computes the log-probabilities {plain.tolist()} for a pair.\n"
            f"  The model contains NaN or infinite weights{overflow}. Start from another model or checkpoint."
        )
    tolerance = TOLERANCE[dtype]
    if not torch.allclose(packed, plain, rtol=tolerance, atol=tolerance):
        raise ModelError(
            f"--engine packed computes the log-probabilities {packed.tolist()} for a pair, but the model's own forward "
            f"computes {plain.tolist()}.\n  The packed engine does not support something that this architecture does. "
            "Pass --engine padded."
        )
