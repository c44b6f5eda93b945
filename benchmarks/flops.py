"""Counts the operations that a step needs, and measures how many the machine can do per second."""

__all__ = ["matmul_peak", "needed_flops"]

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

SHAPES = ((1024, 576, 1536), (1024, 1536, 576), (2048, 576, 1536), (2048, 2048, 2048))
"""Rows, inner size and columns of the measured products. All but the last are those of SmolLM2's layers."""
REPEATS = 8


def needed_flops(model: Any, pairs: Sequence[dict[str, Any]], *, reference: bool) -> float:
    """Count the floating-point operations that a step on these pairs needs, forward and backward.

    Prompts are shared, so each token counts once: 2 x parameters of the layers. The head runs only on completion
    tokens. Attention takes 4 x width x number of visible tokens. The backward pass takes twice as much as the forward.

    Args:
        model: A causal language model.
        pairs: Token ids of the pairs.
        reference: Whether the step includes a forward pass of the reference model.
    """
    head = model.get_output_embeddings()
    layers = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear) and m is not head)
    config = model.config
    width = config.num_attention_heads * getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    forward = 0.0
    for pair in pairs:
        prompt, chosen, rejected = (len(pair[part]) for part in ("prompt_ids", "chosen_ids", "rejected_ids"))
        both = prompt + chosen
        seen = both * (both + 1) / 2 + rejected * prompt + rejected * (rejected + 1) / 2
        forward += 2 * layers * (both + rejected)
        forward += 2 * head.weight.numel() * (chosen + rejected)
        forward += 4 * width * config.num_hidden_layers * seen
    return forward * (4 if reference else 3)


def matmul_peak(dtype: str) -> float:
    """Measure the operations per second of plain matrix products: the best of several shapes and repeats."""
    best = 0.0
    for rows, inner, columns in SHAPES:
        left = torch.randn(rows, inner).to(getattr(torch, dtype))
        right = torch.randn(columns, inner).to(getattr(torch, dtype))
        for _ in range(REPEATS):
            start = time.perf_counter()
            for _ in range(REPEATS):
                left @ right.T
            best = max(best, REPEATS * 2 * rows * inner * columns / (time.perf_counter() - start))
    return best
