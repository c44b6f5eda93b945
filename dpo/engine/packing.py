"""Pairs as one row of tokens, each prompt once.

ids    p0 p1 p2 c0 c1 r0 r1 r2 | p0 p1 c0 ...
pos     0  1  2  3  4  3  4  5 |  0  1  2 ...
sees   rejected sees its prompt and itself, never chosen; no pair sees another
scores c0 and r0 are both predicted at p2, hence logit_index and no plain shift
"""

__all__ = ["Pack", "PackLayout", "Pair", "PairLengths", "VarlenLayout", "pack_pairs"]

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch

Pair = Mapping[str, Sequence[int]]
"""prompt_ids, chosen_ids and rejected_ids. Only rejected may be empty: an answer without a worse one, for SFT."""


class PairLengths(NamedTuple):
    """Tokens of a pair's parts."""

    prompt: int
    chosen: int
    rejected: int


@dataclass(frozen=True, kw_only=True)
class VarlenLayout:
    """What flash attention's varlen function takes to attend over a pack in one call.

    Two sequences a pair: queries [prompt | chosen] on the same keys, queries [rejected] on keys [prompt | rejected],
    causal and aligned at their ends; the second only where there is a rejected answer. The queries lie in the order of
    the pack; the keys are gathered.
    """

    key_index: torch.Tensor
    """Tokens of the pack in the order of the keys, int64 (sum of 2 prompt + chosen + rejected,)."""
    cu_seqlens_q: torch.Tensor
    """Where each sequence's queries begin and the last one's end, int32 (sequences + 1,)."""
    cu_seqlens_k: torch.Tensor
    """The same for its keys."""
    max_seqlen_q: int
    max_seqlen_k: int


@dataclass(frozen=True)
class PackLayout:
    """Where each pair lies in a pack, and what attention needs to know of it."""

    lengths: tuple[PairLengths, ...]
    device: torch.device
    block_masks: dict[int | None, Any] = field(default_factory=dict, compare=False)
    """Flex attention's, by sliding window."""
    elsewhere: dict[torch.device, "PackLayout"] = field(default_factory=dict, compare=False)
    """The same for the other devices of a model that is spread over several."""

    def to(self, device: torch.device | int | str, **options: Any) -> "PackLayout":
        """The layout on a device, made once for each. accelerate sends a layer what it is called with by this name."""
        device = torch.device(device)
        if device == self.device:
            return self
        if device not in self.elsewhere:
            self.elsewhere[device] = PackLayout(self.lengths, device)
        return self.elsewhere[device]

    @cached_property
    def segments(self) -> list[int]:
        """Lengths of [prompt | chosen] and, where there is one, [rejected], pair after pair."""
        return [length for pair in self.lengths for length in (pair.prompt + pair.chosen, pair.rejected) if length]

    @cached_property
    def varlen(self) -> VarlenLayout:
        """Built when the first layer asks for it."""
        key_index: list[torch.Tensor] = []
        key_lengths: list[int] = []
        start = 0
        for prompt, chosen, rejected in self.lengths:
            begin_rejected = start + prompt + chosen
            key_index.append(torch.arange(start, begin_rejected))
            key_lengths.append(prompt + chosen)
            if rejected:
                key_index.append(torch.arange(start, start + prompt))
                key_index.append(torch.arange(begin_rejected, begin_rejected + rejected))
                key_lengths.append(prompt + rejected)
            start = begin_rejected + rejected
        return VarlenLayout(
            key_index=torch.cat(key_index).to(self.device),
            cu_seqlens_q=cumulative(self.segments, self.device),
            cu_seqlens_k=cumulative(key_lengths, self.device),
            max_seqlen_q=max(self.segments),
            max_seqlen_k=max(key_lengths),
        )

    @cached_property
    def token_parts(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of each token: its pair, its part (0 prompt, 1 chosen, 2 rejected) and its position, int32 (tokens,) each."""
        parts = [(pair, part, n) for pair, lengths in enumerate(self.lengths) for part, n in enumerate(lengths)]
        repeats = torch.tensor([n for _, _, n in parts])
        pair = torch.tensor([pair for pair, _, _ in parts], dtype=torch.int32).repeat_interleave(repeats)
        part = torch.tensor([part for _, part, _ in parts], dtype=torch.int32).repeat_interleave(repeats)
        return pair.to(self.device), part.to(self.device), positions(self.lengths).int().to(self.device)


@dataclass(frozen=True, kw_only=True)
class Pack:
    """A micro-batch as the model takes it: one row of tokens, and where its completions are predicted."""

    rows: tuple[int, ...]
    """The pairs, as rows of the data set."""
    is_filler: bool
    """True for a pair that counts elsewhere, computed here for nothing but to keep ranks in step."""
    input_ids: torch.Tensor
    """int64 (1, tokens)."""
    position_ids: torch.Tensor
    """Positions within prompt + completion, int64 (1, tokens)."""
    logit_index: torch.Tensor
    """The token whose hidden state predicts each completion token, int64 (completion tokens,)."""
    targets: torch.Tensor
    """The completion tokens, chosen before rejected, pair after pair, int64 (completion tokens,)."""
    reference_logps: torch.Tensor | None
    """The reference's log-probabilities where they are known, chosen before rejected, nats, float32 (2 x pairs,)."""
    weights: torch.Tensor | None
    """What each pair counts in the loss, float32 (pairs,). None: 1."""
    layout: PackLayout

    @cached_property
    def completion_lengths(self) -> list[int]:
        """Tokens of chosen and rejected, pair after pair."""
        return [length for pair in self.layout.lengths for length in (pair.chosen, pair.rejected)]

    @cached_property
    def num_completion_tokens(self) -> torch.Tensor:
        """The same as a tensor to compute with, float32 (2 x pairs,), on the pack's device."""
        return torch.tensor(self.completion_lengths, dtype=torch.float32, device=self.input_ids.device)

    def token_weights(self, ld_alpha: float) -> torch.Tensor:
        """What each completion token's log-probability counts in LD-DPO, float32 (completion tokens,).

        1 up to the length of the pair's shorter answer, ld_alpha behind it. Liu et al. 2024, arXiv:2409.06411.
        """
        runs = []
        for pair in self.layout.lengths:
            for length in (pair.chosen, pair.rejected):
                shared = min(pair.chosen, pair.rejected)
                runs += [torch.ones(shared), torch.full((length - shared,), ld_alpha)]
        return torch.cat(runs).to(self.input_ids.device)

    @property
    def num_tokens(self) -> int:
        return self.input_ids.shape[1]

    @property
    def num_tokens_unshared(self) -> int:
        """What the pairs hold with each prompt once an answer and no padding."""
        return self.num_tokens + sum(pair.prompt for pair in self.layout.lengths if pair.rejected)

    def to(self, device: torch.device) -> "Pack":
        if device == self.input_ids.device:
            return self
        moved: dict[str, Any] = {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors()}
        return replace(self, layout=self.layout.to(device), **moved)

    def pin_memory(self) -> "Pack":
        """What a DataLoader calls where it copies to a device."""
        pinned: dict[str, Any] = {name: tensor.pin_memory() for name, tensor in self.tensors()}
        return replace(self, **pinned)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                yield name, value


def pack_pairs(
    pairs: Sequence[Pair],
    rows: Sequence[int],
    *,
    is_filler: bool = False,
    reference_logps: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
) -> Pack:
    """Lay pairs side by side.

    Args:
        pairs: prompt_ids, chosen_ids and rejected_ids of each; only rejected may be empty.
        rows: Where each stands in the data set.
        is_filler: Whether the pairs count elsewhere.
        reference_logps: The reference's, float32 (2 x pairs,).
        weights: What each pair counts, float32 (pairs,).
    """
    lengths = tuple(
        PairLengths(len(pair["prompt_ids"]), len(pair["chosen_ids"]), len(pair["rejected_ids"])) for pair in pairs
    )
    parts = [part for pair in pairs for part in (pair["prompt_ids"], pair["chosen_ids"], pair["rejected_ids"])]
    logit_index = []
    start = 0
    for prompt, chosen, rejected in lengths:
        last_of_prompt, chosen_start = start + prompt - 1, start + prompt
        rejected_start = chosen_start + chosen
        logit_index += [last_of_prompt, *range(chosen_start, rejected_start - 1)]
        if rejected:
            logit_index += [last_of_prompt, *range(rejected_start, rejected_start + rejected - 1)]
        start = rejected_start + rejected
    completions = [part for pair in pairs for part in (pair["chosen_ids"], pair["rejected_ids"])]
    return Pack(
        rows=tuple(rows),
        is_filler=is_filler,
        input_ids=torch.tensor([[token for part in parts for token in part]]),
        position_ids=positions(lengths)[None],
        logit_index=torch.tensor(logit_index),
        targets=torch.tensor([token for part in completions for token in part]),
        reference_logps=reference_logps,
        weights=weights,
        layout=PackLayout(lengths, torch.device("cpu")),
    )


def positions(lengths: Sequence[PairLengths]) -> torch.Tensor:
    """Position of each token of a pack: rejected goes on where the prompt ended, as chosen does."""
    pieces = [
        piece
        for prompt, chosen, rejected in lengths
        for piece in (torch.arange(prompt + chosen), torch.arange(prompt, prompt + rejected))
    ]
    return torch.cat(pieces)


def cumulative(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)
