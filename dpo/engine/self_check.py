"""A check before the first step: the packed forward gives what the model's own forward gives."""

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
    """Compare the log-probabilities of one pair, packed and by the model's own forward.

    Args:
        forward: The model's packed forward.
        model: The model, wrapped or not.
        pair: prompt_ids, chosen_ids, rejected_ids.
        device: Where packs are computed.
        dtype: What computes, which decides how far the two may differ.

    Raises:
        ModelError: they differ, or the model's own forward gives NaN or infinite values.
    """
    was_training = model.training
    model.eval()
    packed = forward.logps(model, pack_pairs([pair], [0]).to(device))
    plain = forward.plain_logps(model, dict(pair))
    model.train(was_training)
    if not plain.isfinite().all():
        overflow = " or overflow in float16: pass --bf16 true instead of --fp16" if dtype == torch.float16 else ""
        raise ModelError(
            f"the model's own forward gives a pair the log-probabilities {plain.tolist()}.\n"
            f"  The model contains NaN or infinite weights{overflow}. Start from another model or checkpoint."
        )
    tolerance = TOLERANCE[dtype]
    if not torch.allclose(packed, plain, rtol=tolerance, atol=tolerance):
        raise ModelError(
            f"--engine packed gives a pair the log-probabilities {packed.tolist()}, and the model's own forward gives "
            f"{plain.tolist()}.\n  The packed engine does not support something that this architecture does. Pass "
            "--engine padded."
        )
