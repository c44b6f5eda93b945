"""Lays out pairs as one row of tokens, with each prompt once.

ids    p0 p1 p2 c0 c1 r0 r1 r2 | p0 p1 c0 ...
pos     0  1  2  3  4  3  4  5 |  0  1  2 ...
sees   rejected sees its prompt and itself, never chosen; no pair sees another pair
scores c0 and r0 are both predicted at p2, so logit_index replaces a shift by one token
"""

__all__ = ["Pack", "PackLayout", "Pair", "PairLengths", "VarlenLayout", "pack_pairs"]

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch

Pair = Mapping[str, Sequence[int]]
"""prompt_ids, chosen_ids and rejected_ids. Only rejected_ids may be empty: in SFT, an answer has no worse one."""


class PairLengths(NamedTuple):
    """Length of each part of a pair, in tokens."""

    prompt: int
    chosen: int
    rejected: int


@dataclass(frozen=True, kw_only=True)
class VarlenLayout:
    """The arguments with which flash attention's varlen function attends over a pack in one call.

    A pair has two sequences: queries [prompt | chosen] on the same keys, and queries [rejected] on keys
    [prompt | rejected]. Both are causal and aligned at their ends. A pair without a rejected answer has only the first
    sequence. The queries keep the order of the pack. The keys are gathered.
    """

    key_index: torch.Tensor
    """The pack's token of each key, int64 (sum of 2 prompt + chosen + rejected,)."""
    cu_seqlens_q: torch.Tensor
    """Start of each sequence's queries, and the end of the last sequence, int32 (sequences + 1,)."""
    cu_seqlens_k: torch.Tensor
    """The same for the keys."""
    max_seqlen_q: int
    max_seqlen_k: int


@dataclass(frozen=True)
class PackLayout:
    """Where each pair lies in a pack, and what attention derives from that."""

    lengths: tuple[PairLengths, ...]
    device: torch.device
    block_masks: dict[int | None, Any] = field(default_factory=dict, compare=False)
    """Flex attention's block masks, by sliding window."""
    elsewhere: dict[torch.device, "PackLayout"] = field(default_factory=dict, compare=False)
    """Copies of the layout on the other devices of a model that is spread over several."""

    def to(self, device: torch.device | int | str, **options: Any) -> "PackLayout":
        """Return the layout on a device. It is built once per device.

        accelerate moves the arguments of a layer to the layer's device by calling a method of this name.
        """
        device = torch.device(device)
        if device == self.device:
            return self
        if device not in self.elsewhere:
            self.elsewhere[device] = PackLayout(self.lengths, device)
        return self.elsewhere[device]

    @cached_property
    def segments(self) -> list[int]:
        """Lengths of [prompt | chosen] and, if there is a rejected answer, of [rejected], pair after pair."""
        return [length for pair in self.lengths for length in (pair.prompt + pair.chosen, pair.rejected) if length]

    @cached_property
    def varlen(self) -> VarlenLayout:
        """Flash attention's arguments, built when the first layer reads them."""
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
        """Pair, part (0 prompt, 1 chosen, 2 rejected) and position of each token, three times int32 (tokens,)."""
        parts = [(pair, part, n) for pair, lengths in enumerate(self.lengths) for part, n in enumerate(lengths)]
        repeats = torch.tensor([n for _, _, n in parts])
        pair = torch.tensor([pair for pair, _, _ in parts], dtype=torch.int32).repeat_interleave(repeats)
        part = torch.tensor([part for _, part, _ in parts], dtype=torch.int32).repeat_interleave(repeats)
        return pair.to(self.device), part.to(self.device), positions(self.lengths).int().to(self.device)


@dataclass(frozen=True, kw_only=True)
class Pack:
    """A micro-batch as model input: one row of tokens, and the tokens at which its completions are predicted."""

    rows: tuple[int, ...]
    """Row number of each pair in the data set."""
    is_filler: bool
    """True if the pair counts in another micro-batch, and is computed here only to keep the ranks in step."""
    input_ids: torch.Tensor
    """int64 (1, tokens)."""
    position_ids: torch.Tensor
    """Positions within prompt + completion, int64 (1, tokens)."""
    logit_index: torch.Tensor
    """Index of the token whose hidden state predicts each completion token, int64 (completion tokens,)."""
    targets: torch.Tensor
    """The completion tokens, chosen before rejected, pair after pair, int64 (completion tokens,)."""
    reference_logps: torch.Tensor | None
    """Log-probabilities under the reference model, chosen before rejected, nats, float32 (2 x pairs,), or None."""
    weights: torch.Tensor | None
    """Weight of each pair in the loss, float32 (pairs,). None: 1."""
    layout: PackLayout

    @cached_property
    def completion_lengths(self) -> list[int]:
        """Length of chosen and rejected in tokens, pair after pair."""
        return [length for pair in self.layout.lengths for length in (pair.chosen, pair.rejected)]

    @cached_property
    def num_completion_tokens(self) -> torch.Tensor:
        """completion_lengths as a tensor on the pack's device, float32 (2 x pairs,)."""
        return torch.tensor(self.completion_lengths, dtype=torch.float32, device=self.input_ids.device)

    def token_weights(self, ld_alpha: float) -> torch.Tensor:
        """Return the weight of each completion token's log-probability in LD-DPO.

        The weight is 1 up to the length of the pair's shorter answer, and ld_alpha beyond it. Liu et al. 2024,
        arXiv:2409.06411.

        Args:
            ld_alpha: Weight of the tokens beyond the shorter length, dimensionless, 0 to 1.

        Returns:
            float32 (completion tokens,). Answers of 1 and 3 tokens and ld_alpha 0.5 give 1, then 1, 0.5, 0.5.
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
        """Number of tokens of the pairs if each answer had its own copy of the prompt, without padding."""
        return self.num_tokens + sum(pair.prompt for pair in self.layout.lengths if pair.rejected)

    def to(self, device: torch.device) -> "Pack":
        if device == self.input_ids.device:
            return self
        moved: dict[str, Any] = {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors()}
        return replace(self, layout=self.layout.to(device), **moved)

    def pin_memory(self) -> "Pack":
        """Pin the pack's tensors. A DataLoader calls this before it copies to a device."""
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
    """Lay out pairs side by side in one row of tokens.

    Args:
        pairs: Token ids of each pair. Only rejected_ids may be empty.
        rows: Row number of each pair in the data set.
        is_filler: Whether the pairs count in another micro-batch.
        reference_logps: Log-probabilities under the reference model, chosen before rejected, nats, float32
            (2 x pairs,). None: unknown.
        weights: Weight of each pair in the loss, float32 (pairs,). None: 1.

    Returns:
        The pack, on the CPU. Pairs of 3 + 2 + 3 and 1 + 1 + 1 tokens give a row of 11 tokens and 7 completion tokens.
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
    """Return the position of each token of a pack. Rejected, like chosen, continues from the end of the prompt."""
    pieces = [
        piece
        for prompt, chosen, rejected in lengths
        for piece in (torch.arange(prompt + chosen), torch.arange(prompt, prompt + rejected))
    ]
    return torch.cat(pieces)


def cumulative(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)
