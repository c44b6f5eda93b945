"""Attention over a pack of pairs: one contract, three back ends, and no mask of tokens x tokens in any.

Sharing a prompt exactly takes two causal attentions a pair: [prompt | chosen] on itself, and [rejected] on
[prompt | rejected], aligned at their ends. SDPA computes them pair by pair, flash attention all in one call, flex
attention with a block mask. Wang et al. 2024, arXiv:2410.20305, share prefixes this way.

Each function takes query (1, heads, tokens, head size), key and value (1, key heads, tokens, head size), and gives
(1, tokens, heads, head size), what transformers' models expect of an attention.
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
"""Name that a back end has among transformers' attentions."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How a layer turns queries and keys into probabilities."""

    scale: float
    """Factor of the scores."""
    sliding_window: int | None = None
    """Tokens that a query sees, itself included; None sees all before it."""
    softcap: float | None = None
    """Scores become softcap tanh(scores / softcap). Gemma 2, arXiv:2408.00118, section 2."""
    sinks: torch.Tensor | None = None
    """A score of each head that takes probability and gives nothing, (heads,)."""


class PackedAttention(Protocol):
    """The contract of a back end."""

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
    """Two calls a pair of torch's scaled_dot_product_attention; plain matrix products for what it does not offer."""
    # One split each, so that the backward pass writes each gradient once.
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
    """What each query may see, bool (queries, keys), aligned at the ends; None where is_causal says it all."""
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
    """Attention written out, with soft-capped scores and sinks.

    Args:
        query: (1, heads, queries, head size).
        key: (1, key heads, keys, head size).
        value: As key.
        mask: What may be seen, bool (queries, keys); None is causal.
        scoring: Its sliding window is the mask's.

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
    """One call of flash attention's varlen function, or of varlen_attention, which has its signature, for all pairs."""
    if scoring.sinks is not None:
        raise ModelError("flash attention 2 has no attention sinks: pass --attn_implementation flex_attention")
    if varlen_attention is None:
        from flash_attn import flash_attn_varlen_func  # here, since only a GPU machine can build it

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
    """Transformers' flex attention with a block mask of the pack."""
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
    """What each token of a pack may see, as flex attention takes it; made once for a pack and each window."""
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
"""By names of ours: transformers takes an attention with sdpa, flash or flex in its name for one of its own."""


def choose_backend(attention: str | None) -> str:
    """The back end for what a model was loaded with: varlen for flash attention, blockwise for flex, else pairwise."""
    return {"flash_attention_2": "varlen", "flex_attention": "blockwise"}.get(str(attention), "pairwise")


def register() -> None:
    """Make the back ends known to transformers, each as PACKED.format(name), with no mask made for them."""
    for name, backend in BACKENDS.items():
        AttentionInterface.register(PACKED.format(name), transformers_attention(backend))
        AttentionMaskInterface.register(PACKED.format(name), no_mask)


def transformers_attention(backend: PackedAttention) -> Callable[..., tuple[torch.Tensor, None]]:
    """A back end in the form that transformers' models call. `layout` reaches it from model(..., layout=...)."""

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
            raise ModelError("--engine packed has no attention dropout: set it to 0 in config.json, or --engine padded")
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        scoring = Scoring(scale=scale, sliding_window=sliding_window, softcap=softcap, sinks=s_aux)
        return backend(module, query, key, value, layout, scoring), None

    return attention


def no_mask(*args: Any, **kwargs: Any) -> None:
    """Attention over a pack knows what each token sees from the pack's layout."""
