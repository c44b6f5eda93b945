"""The back ends of packed attention, compared with plain attention and a (tokens x tokens) mask."""

import pytest
import torch

from dpo.engine.attention import (
    Scoring,
    choose_backend,
    flash_packed,
    flex_packed,
    plain_attention,
    sdpa_packed,
    transformers_attention,
)
from dpo.engine.packing import PackLayout, PairLengths
from dpo.errors import ModelError

LAYOUT = PackLayout(
    (PairLengths(5, 3, 7), PairLengths(1, 1, 1), PairLengths(6, 3, 0), PairLengths(9, 4, 2)), torch.device("cpu")
)
"""The third pair has no rejected answer, as in SFT."""
TOKENS = sum(map(sum, LAYOUT.lengths))
HEADS, KEY_HEADS, SIZE = 4, 2, 16

VARIANTS = {
    "plain": Scoring(scale=0.3),
    "sliding window": Scoring(scale=0.3, sliding_window=4),
    "window of one": Scoring(scale=0.3, sliding_window=1),
    "window longer than a pair": Scoring(scale=0.3, sliding_window=100),
    "soft-capping": Scoring(scale=0.3, softcap=1.5),
    "soft-capping in a window": Scoring(scale=0.3, softcap=1.5, sliding_window=3),
}
WITH_SINKS = Scoring(scale=0.3, sinks=torch.tensor([0.5, -1.0, 2.0, 0.0]))


def varlen_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float,
    causal: bool,
    window_size: tuple[int, int],
    softcap: float,
) -> torch.Tensor:
    """Compute what flash_attn_varlen_func documents, sequence by sequence. Replaces it on a machine without a GPU."""
    assert causal and q.is_contiguous()
    outputs = []
    for i in range(len(cu_seqlens_q) - 1):
        queries = q[cu_seqlens_q[i] : cu_seqlens_q[i + 1]]
        keys, values = (tensor[cu_seqlens_k[i] : cu_seqlens_k[i + 1]] for tensor in (k, v))
        assert len(queries) <= max_seqlen_q and len(keys) <= max_seqlen_k
        keys, values = (tensor.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for tensor in (keys, values))
        scores = torch.einsum("qhd,khd->hqk", queries, keys) * softmax_scale
        scores = softcap * torch.tanh(scores / softcap) if softcap else scores
        last = torch.arange(len(queries))[:, None] + len(keys) - len(queries)
        distance = last - torch.arange(len(keys))
        allowed = (distance >= 0) & ((distance <= window_size[0]) if window_size[0] >= 0 else True)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~allowed, -torch.inf).softmax(-1), values))
    return torch.cat(outputs)


def flash_reference(*args, **kwargs):
    return flash_packed(*args, **kwargs, varlen_attention=varlen_reference)


def what_each_token_may_see(sliding_window: int | None) -> torch.Tensor:
    """Build the mask token by token, bool (tokens, tokens)."""
    tokens = [
        (pair, part, (0 if part == "prompt" else lengths.prompt) + i)
        for pair, lengths in enumerate(LAYOUT.lengths)
        for part, length in zip(("prompt", "chosen", "rejected"), lengths, strict=True)
        for i in range(length)
    ]
    return torch.tensor(
        [
            [
                pair == other_pair
                and other_part in ("prompt", part)
                and position >= other_position
                and (sliding_window is None or position - other_position < sliding_window)
                for other_pair, other_part, other_position in tokens
            ]
            for pair, part, position in tokens
        ]
    )


def inputs() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, heads, TOKENS, SIZE, requires_grad=True) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]


def with_a_full_mask(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scoring: Scoring) -> torch.Tensor:
    mask = what_each_token_may_see(scoring.sliding_window)
    return plain_attention(query, key, value, mask, scoring).transpose(1, 2)


@pytest.mark.parametrize(
    ("backend", "scoring"),
    [
        *((sdpa_packed, scoring) for scoring in (*VARIANTS.values(), WITH_SINKS)),
        *((flash_reference, scoring) for scoring in VARIANTS.values()),
    ],
)
def test_outputs_and_gradients_are_those_of_a_full_mask(backend, scoring):
    query, key, value = inputs()
    output = backend(torch.nn.Identity(), query, key, value, LAYOUT, scoring)
    assert output.shape == (1, TOKENS, HEADS, SIZE)
    weights = torch.randn_like(output)
    found = torch.autograd.grad((output * weights).sum(), (query, key, value))
    plain = with_a_full_mask(query, key, value, scoring)
    expected = torch.autograd.grad((plain * weights).sum(), (query, key, value))
    torch.testing.assert_close(output, plain, rtol=1e-4, atol=1e-5)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scoring", VARIANTS.values(), ids=VARIANTS)
def test_flex_gives_what_a_full_mask_gives(scoring):
    """Compares only the forward pass, because flex attention has no backward pass on a CPU."""
    query, key, value = (tensor.detach() for tensor in inputs())
    output = flex_packed(torch.nn.Identity(), query, key, value, LAYOUT, scoring)
    torch.testing.assert_close(output, with_a_full_mask(query, key, value, scoring), rtol=1e-4, atol=1e-5)


def test_flash_refuses_attention_sinks_by_name():
    with pytest.raises(ModelError, match="does not support attention sinks"):
        flash_packed(torch.nn.Identity(), *inputs(), LAYOUT, WITH_SINKS)


def test_flex_on_a_cpu_refuses_attention_sinks_by_name():
    with pytest.raises(ValueError, match="sinks"):
        flex_packed(torch.nn.Identity(), *inputs(), LAYOUT, WITH_SINKS)


def test_rejected_does_not_see_chosen():
    query, key, value = inputs()
    scoring = Scoring(scale=0.3)
    before = sdpa_packed(torch.nn.Identity(), query, key, value, LAYOUT, scoring)
    chosen = slice(5, 8)
    with torch.no_grad():
        key[:, :, chosen] += 1
        value[:, :, chosen] += 1
    after = sdpa_packed(torch.nn.Identity(), query, key, value, LAYOUT, scoring)
    moved = (after - before).abs().amax(dim=(0, 2, 3)) > 0
    assert moved.nonzero().flatten().tolist() == [5, 6, 7]


def test_attention_dropout_is_refused():
    with pytest.raises(ModelError, match=r"does not support attention dropout, which is 0\.1"):
        transformers_attention(sdpa_packed)(torch.nn.Identity(), *inputs(), None, layout=LAYOUT, dropout=0.1)


def test_the_back_end_follows_the_attention_that_the_model_was_loaded_with():
    assert [choose_backend(name) for name in ("sdpa", "eager", None)] == ["pairwise"] * 3
    assert choose_backend("flash_attention_2") == "varlen"
    assert choose_backend("flex_attention") == "blockwise"
