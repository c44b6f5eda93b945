"""Attention over a pack of pairs: one interface with three back ends. None of them builds a (tokens x tokens) mask.

To share a prompt exactly, each pair needs two causal attentions: [prompt | chosen] on itself, and [rejected] on
[prompt | rejected], aligned at their ends. SDPA computes them pair by pair. Flash attention computes all of them in one
call. Flex attention uses a block mask. Wang et al. 2024, arXiv:2410.20305, share prefixes in the same way.

Each back end takes query (1, heads, tokens, head size), and key and value (1, key heads, tokens, head size). It returns
(1, tokens, heads, head size), the shape that transformers' models expect.
"""

__all__ = [
    "BACKENDS",
    "PACKED",
    "Scoring",
    "choose_backend",
    "flash_packed",
    "flex_packed",
    "register",
    "sdpa_packed",
]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward

from dpo.engine.packing import PackLayout
from dpo.errors import ModelError

PACKED = "dpo_packed_{}"
"""Name under which transformers knows a back end: PACKED.format(name)."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How a layer turns queries and keys into attention probabilities."""

    scale: float
    """Factor of the scores, dimensionless: scores = scale * query @ key."""
    sliding_window: int | None = None
    """Number of tokens that a query sees, including itself. None: all tokens before it."""
    softcap: float | None = None
    """Scores become softcap tanh(scores / softcap). Gemma 2, arXiv:2408.00118, section 2. None: no soft-capping."""
    sinks: torch.Tensor | None = None
    """Attention sinks: one extra score per head, (heads,). It takes probability and adds no value. None: no sinks."""


class PackedAttention(Protocol):
    """The interface of a back end.

    Args:
        module: The attention layer of the model. Only flex attention reads it.
        query: (1, heads, tokens, head size), float32 or half precision.
        key: (1, key heads, tokens, head size). The number of key heads divides the number of heads.
        value: Same shape as key.
        layout: The pairs of the pack.
        scoring: Scale, sliding window, soft-cap and sinks of the layer.

    Returns:
        (1, tokens, heads, head size).
    """

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        layout: PackLayout,
        scoring: Scoring,
    ) -> torch.Tensor: ...


def sdpa_packed(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: PackLayout,
    scoring: Scoring,
) -> torch.Tensor:
    """Compute attention over a pack with two calls of torch's scaled_dot_product_attention per pair.

    Arguments and result are those of PackedAttention. Layers with soft-capping or sinks use plain_attention, because
    torch's function supports neither.
    """
    # Split each tensor only once, so that the backward pass writes each gradient once.
    queries, keys, values = (iter(torch.split(tensor, layout.segments, dim=2)) for tensor in (query, key, value))
    plain = scoring.softcap is not None or scoring.sinks is not None
    outputs = []
    for lengths in layout.lengths:
        k, v = next(keys), next(values)
        attended = [(next(queries), k, v)]
        if lengths.rejected:
            shared_key, shared_value = k[:, :, : lengths.prompt], v[:, :, : lengths.prompt]
            rejected_key = torch.cat((shared_key, next(keys)), dim=2)
            attended.append((next(queries), rejected_key, torch.cat((shared_value, next(values)), dim=2)))
        for q, k, v in attended:
            mask = causal_mask(q.shape[2], k.shape[2], scoring.sliding_window, q.device)
            if plain:
                output = plain_attention(q, k, v, mask, scoring)
            else:
                output = functional.scaled_dot_product_attention(
                    q,
                    k,
                    v,
                    attn_mask=mask,
                    is_causal=mask is None,
                    scale=scoring.scale,
                    enable_gqa=q.shape[1] != k.shape[1],
                )
            outputs.append(output.transpose(1, 2))
    return torch.cat(outputs, dim=1)


def causal_mask(
    num_queries: int, num_keys: int, sliding_window: int | None, device: torch.device
) -> torch.Tensor | None:
    """Build a causal mask in which the last query is aligned with the last key.

    Args:
        num_queries: Number of queries, at most num_keys.
        num_keys: Number of keys.
        sliding_window: Number of keys that a query sees. None: all keys up to its own.
        device: Device of the mask.

    Returns:
        bool (queries, keys), True where a query sees a key. None if torch's is_causal has the same effect.
        2 queries and 3 keys give [[True, True, False], [True, True, True]].
    """
    window = num_keys if sliding_window is None else min(sliding_window, num_keys)
    if num_queries == num_keys == window:
        return None
    distance = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None] - torch.arange(
        num_keys, device=device
    )
    return (distance >= 0) & (distance < window)


def plain_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scoring: Scoring,
) -> torch.Tensor:
    """Compute attention with plain matrix products. Supports soft-capped scores and sinks.

    Args:
        query: (1, heads, queries, head size).
        key: (1, key heads, keys, head size).
        value: Same shape as key.
        mask: True where a query sees a key, bool (queries, keys). None: causal.
        scoring: Scale, soft-cap and sinks. The sliding window must be part of the mask.

    Returns:
        (1, heads, queries, head size).
    """
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * scoring.scale
    if scoring.softcap is not None:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    if mask is None:
        mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
    scores = scores.masked_fill(~mask, float("-inf")).float()
    if scoring.sinks is not None:
        sink = scoring.sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat((scores, sink), dim=3)
    weights = scores.softmax(dim=3)[..., : key.shape[2]]
    return weights.to(value.dtype) @ value


def flash_packed(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: PackLayout,
    scoring: Scoring,
    *,
    varlen_attention: Callable[..., torch.Tensor] | None = None,
) -> torch.Tensor:
    """Compute attention over a pack with one call of flash attention's varlen function.

    Args:
        module: As in PackedAttention.
        query: As in PackedAttention, in half precision.
        key: As in PackedAttention.
        value: As in PackedAttention.
        layout: As in PackedAttention.
        scoring: As in PackedAttention, without sinks.
        varlen_attention: A function with the signature of flash_attn_varlen_func. None: flash_attn_varlen_func itself.

    Returns:
        (1, tokens, heads, head size).

    Raises:
        ModelError: if the layer has attention sinks.
    """
    if scoring.sinks is not None:
        raise ModelError(
            "flash attention 2 does not support attention sinks, which this model has.\n"
            "  Pass --attn_implementation flex_attention."
        )
    if varlen_attention is None:
        from flash_attn import flash_attn_varlen_func  # imported here, because only a machine with CUDA can build it

        varlen_attention = flash_attn_varlen_func
    flat_query, flat_key, flat_value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    varlen = layout.varlen
    output: torch.Tensor = varlen_attention(
        flat_query.contiguous(),
        flat_key.index_select(0, varlen.key_index),
        flat_value.index_select(0, varlen.key_index),
        cu_seqlens_q=varlen.cu_seqlens_q,
        cu_seqlens_k=varlen.cu_seqlens_k,
        max_seqlen_q=varlen.max_seqlen_q,
        max_seqlen_k=varlen.max_seqlen_k,
        softmax_scale=scoring.scale,
        causal=True,
        window_size=(-1, -1) if scoring.sliding_window is None else (scoring.sliding_window - 1, 0),
        softcap=scoring.softcap or 0.0,
    )
    return output[None]


def flex_packed(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: PackLayout,
    scoring: Scoring,
) -> torch.Tensor:
    """Compute attention over a pack with transformers' flex attention and a block mask of the pack.

    Arguments and result are those of PackedAttention.
    """
    output: torch.Tensor
    output, _ = flex_attention_forward(
        module,
        query,
        key,
        value,
        block_mask(layout, scoring.sliding_window),
        scaling=scoring.scale,
        softcap=scoring.softcap,
        s_aux=scoring.sinks,
    )
    return output


def block_mask(layout: PackLayout, sliding_window: int | None) -> BlockMask:
    """Return flex attention's mask of the tokens that each token sees. It is built once per pack and sliding window."""
    if sliding_window not in layout.block_masks:
        pair, part, position = layout.token_parts
        tokens = len(pair)

        def sees(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            own = (pair[query] == pair[key]) & ((part[key] == 0) | (part[key] == part[query]))
            distance = position[query] - position[key]
            near = distance >= 0 if sliding_window is None else (distance >= 0) & (distance < sliding_window)
            return own & near & (key <= query)

        layout.block_masks[sliding_window] = create_block_mask(sees, None, None, tokens, tokens, device=layout.device)
    mask: BlockMask = layout.block_masks[sliding_window]
    return mask


BACKENDS: dict[str, PackedAttention] = {"pairwise": sdpa_packed, "varlen": flash_packed, "blockwise": flex_packed}
"""The back ends by name. A name must not contain sdpa, flash or flex: transformers would treat it as one of its own."""


def choose_backend(attention: str | None) -> str:
    """Return the name of the back end for a model.

    Args:
        attention: The attention implementation that the model was loaded with.

    Returns:
        "varlen" for flash_attention_2, "blockwise" for flex_attention, and "pairwise" otherwise.
    """
    return {"flash_attention_2": "varlen", "flex_attention": "blockwise"}.get(str(attention), "pairwise")


def register() -> None:
    """Register each back end with transformers as PACKED.format(name). transformers builds no mask for it."""
    for name, backend in BACKENDS.items():
        AttentionInterface.register(PACKED.format(name), transformers_attention(backend))
        AttentionMaskInterface.register(PACKED.format(name), no_mask)


def transformers_attention(backend: PackedAttention) -> Callable[..., tuple[torch.Tensor, None]]:
    """Wrap a back end in the signature that transformers' models call. `layout` comes from model(..., layout=...)."""

    def attention(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: None,
        *,
        layout: PackLayout,
        scaling: float | None = None,
        dropout: float = 0.0,
        sliding_window: int | None = None,
        softcap: float | None = None,
        s_aux: torch.Tensor | None = None,
        **unused: Any,
    ) -> tuple[torch.Tensor, None]:
        if dropout:
            raise ModelError(
                f"--engine packed does not support attention dropout, which is {dropout:g} in this model.\n"
                "  Set it to 0 in the model's config.json, or pass --engine padded."
            )
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        scoring = Scoring(scale=scale, sliding_window=sliding_window, softcap=softcap, sinks=s_aux)
        return backend(module, query, key, value, layout, scoring), None

    return attention


def no_mask(*args: Any, **kwargs: Any) -> None:
    """Build no mask. The pack's layout defines which tokens each token sees."""
