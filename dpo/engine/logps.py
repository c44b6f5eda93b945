"""Log-probabilities of completions, and their gradient, without a (tokens x vocabulary) tensor that outlives its chunk.

The head of a language model is much of the work of DPO and most of its memory: 49,152 logits a token for SmolLM2. Here
it runs on completion tokens alone, a few pairs at a time. A pair's loss depends on its own log-probabilities alone, so
its gradient is worked out while its logits are still there, and no logit is computed twice.
"""

__all__ = ["Completions", "LogitTransform", "PairLoss", "Scored", "completion_loss", "score_completions"]

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from transformers import PreTrainedConfig

CHUNK_LOGITS = 2**26
"""Logits held at once, 256 MiB in float32: 1,365 completion tokens of SmolLM2, 523 of Llama 3."""


class Scored(NamedTuple):
    """What a model makes of completions, chosen before rejected, pair after pair."""

    logps: torch.Tensor
    """Log-probabilities, summed over each completion's tokens, nats, float32 (2 x pairs,)."""
    confidences: torch.Tensor | None = None
    """exp of the mean over each completion's tokens of log p - log(sum over the vocabulary of p^2), (2 x pairs,)."""


PairLoss = Callable[[Scored, slice], torch.Tensor]
"""Some of the pack's pairs, and which they are. Gives the sum of their losses."""


@dataclass(frozen=True, kw_only=True)
class Completions:
    """What the head is asked for, chosen before rejected, pair after pair."""

    targets: torch.Tensor
    """The completion tokens, int64 (completion tokens,)."""
    lengths: Sequence[int]
    """Tokens of each completion."""
    token_weights: torch.Tensor | None = None
    """What each token's log-probability counts in its completion's sum, (completion tokens,). None: 1."""
    wants_confidences: bool = False

    def scored(self, values: Sequence[torch.Tensor], pairs: slice, tokens: slice) -> Scored:
        """Chunks of Scores.values, which are those of some pairs' tokens, as one value a completion."""
        logps, *log_confidences = torch.cat(list(values), dim=1)
        lengths = self.lengths[2 * pairs.start : 2 * pairs.stop]
        sums = sum_by_length(self.weighted(logps, tokens), lengths)
        if not log_confidences:
            return Scored(sums)
        means = sum_by_length(log_confidences[0], lengths) / torch.tensor(lengths, device=logps.device)
        return Scored(sums, means.exp())

    def weighted(self, values: torch.Tensor, tokens: slice) -> torch.Tensor:
        return values if self.token_weights is None else values * self.token_weights[tokens]


@dataclass(frozen=True)
class LogitTransform:
    """What a model does to its head's output: logits = softcap tanh(scale x output / softcap)."""

    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, config: PreTrainedConfig) -> "LogitTransform":
        """As a model's configuration says: Gemma 2 soft-caps, Cohere and Falcon-H1 multiply, Granite divides."""
        config = config.get_text_config()
        scale = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None)
        if scale is None:
            scale = 1 / (getattr(config, "logits_scaling", None) or 1.0)
        return cls(scale=scale, softcap=getattr(config, "final_logit_softcapping", None))

    def forward_(self, output: torch.Tensor) -> torch.Tensor:
        """Logits from the head's output, in place."""
        if self.scale != 1:
            output.mul_(self.scale)
        if self.softcap is not None:
            output.div_(self.softcap).tanh_().mul_(self.softcap)
        return output

    def softcap_slope(self, logits: torch.Tensor) -> torch.Tensor | None:
        """Derivative of the soft-capping, from its result."""
        return None if self.softcap is None else 1 - (logits / self.softcap).square_()


@dataclass(frozen=True, kw_only=True)
class Head:
    """A head's weights in the dtype that computes, and what follows it."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    transform: LogitTransform
    wants_confidences: bool

    @classmethod
    def for_computing(
        cls, weight: torch.Tensor, bias: torch.Tensor | None, transform: LogitTransform, completions: Completions
    ) -> "Head":
        """Cast once for all chunks, as autocast would for each."""
        device = weight.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        return cls(
            weight=weight.to(dtype),
            bias=None if bias is None else bias.to(dtype),
            transform=transform,
            wants_confidences=completions.wants_confidences,
        )

    @property
    def chunk_tokens(self) -> int:
        return max(1, CHUNK_LOGITS // len(self.weight))

    def score(self, hidden: torch.Tensor, targets: torch.Tensor) -> "Scores":
        """Log-probabilities of a chunk's targets, with what their gradient takes."""
        logits = functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias).float()
        logits = self.transform.forward_(logits)
        slope = self.transform.softcap_slope(logits)
        largest = logits.amax(dim=1, keepdim=True)
        of_targets = logits.gather(1, targets[:, None]) - largest
        exps = logits.sub_(largest).exp_()
        sums = exps.sum(dim=1, keepdim=True)
        values = [(of_targets - sums.log())[:, 0]]
        if self.wants_confidences:  # of p = exps / sums, whose sum of squares is a norm's square
            values.append(values[0] - 2 * (torch.linalg.vector_norm(exps, dim=1).log() - sums[:, 0].log()))
        return Scores(values=torch.stack(values), exps=exps, sums=sums, softcap_slope=slope)

    def gradient(self, scores: "Scores", targets: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        """Gradient by the head's output, (tokens, vocabulary), in the place of the scores.

        Args:
            scores: Used up.
            targets: int64 (tokens,).
            slopes: Gradient by each target's log-probability, (tokens,).
        """
        gradient = scores.exps.mul_(-slopes[:, None] / scores.sums)
        gradient[torch.arange(len(targets), device=targets.device), targets] += slopes
        if scores.softcap_slope is not None:
            gradient.mul_(scores.softcap_slope)
        if self.transform.scale != 1:
            gradient.mul_(self.transform.scale)
        return gradient.to(self.weight.dtype)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A chunk of logits as its softmax."""

    values: torch.Tensor
    """Of the targets: log-probabilities and, where wanted, log-confidences, nats, float32 (1 or 2, tokens)."""
    exps: torch.Tensor
    """exp(logit - the row's largest), float32 (tokens, vocabulary)."""
    sums: torch.Tensor
    """Of the rows of exps, (tokens, 1)."""
    softcap_slope: torch.Tensor | None


def score_completions(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    completions: Completions,
    transform: LogitTransform,
) -> Scored:
    """Log-probabilities of completions, without a gradient.

    Args:
        hidden: What predicts each completion token, (completion tokens, width).
        weight: The head's, (vocabulary, width).
        bias: The head's, (vocabulary,), or None.
        completions: What is asked for.
        transform: What follows the head.
    """
    head = Head.for_computing(weight, bias, transform, completions)
    with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
        chunks = zip(*(torch.split(t, head.chunk_tokens) for t in (hidden, completions.targets)), strict=True)
        values = [head.score(*chunk).values for chunk in chunks]
        return completions.scored(values, slice(0, len(completions.lengths) // 2), slice(0, len(hidden)))


def completion_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    completions: Completions,
    transform: LogitTransform,
    pair_loss: PairLoss,
    *,
    compares_pairs: bool = False,
) -> tuple[torch.Tensor, Scored]:
    """The sum of the pairs' losses, differentiable by hidden, weight and bias, and what it was worked out from.

    Args are those of score_completions and
        pair_loss: From some pairs to the sum of their losses.
        compares_pairs: Whether it must be given all pairs at once, for which logits that fill more than one chunk are
            computed twice. Else it is called for a few pairs at a time.

    Returns:
        Loss, a float32 scalar, and the pairs' scores, detached.
    """
    loss, *scored = _CompletionLoss.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, completions, transform, pair_loss, compares_pairs
    )
    return loss, Scored(*scored)


class _CompletionLoss(torch.autograd.Function):
    """The loss and at once its gradients, which backward hands out."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        completions: Completions,
        transform: LogitTransform,
        pair_loss: PairLoss,
        compares_pairs: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        head = Head.for_computing(weight, bias, transform, completions)
        gradients = Gradients(hidden, weight if needs_weight else None, bias if needs_bias else None)
        lengths, targets = completions.lengths, completions.targets
        losses, scored = [], []
        with torch.autocast(weight.device.type, enabled=False):
            for pairs, tokens in groups_of_pairs(lengths, len(hidden) if compares_pairs else head.chunk_tokens):
                chunks = chunks_of(tokens, head.chunk_tokens)
                kept = [head.score(hidden[chunks[0]], targets[chunks[0]])]
                # A group too long for one chunk is the one case whose logits are computed twice.
                values = [kept[0].values, *(head.score(hidden[chunk], targets[chunk]).values for chunk in chunks[1:])]
                scored.append(completions.scored(values, pairs, tokens))
                loss, slopes = value_and_slopes(pair_loss, scored[-1], pairs)
                losses.append(loss)
                repeats = torch.tensor(lengths[2 * pairs.start : 2 * pairs.stop], device=slopes.device)
                slopes = completions.weighted(slopes.repeat_interleave(repeats), tokens)
                for chunk, chunk_slopes in zip(chunks, torch.split(slopes, head.chunk_tokens), strict=True):
                    scores = kept.pop() if kept else head.score(hidden[chunk], targets[chunk])
                    gradients.add(head, hidden, chunk, head.gradient(scores, targets[chunk], chunk_slopes))
                    del scores
        ctx.gradients = gradients
        logps = torch.cat([each.logps for each in scored])
        confidences = [each.confidences for each in scored if each.confidences is not None]
        detached = (logps, torch.cat(confidences) if confidences else None)
        ctx.mark_non_differentiable(*(values for values in detached if values is not None))
        return torch.stack(losses).sum(), *detached

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients = ctx.gradients
        ctx.gradients = None
        return (*gradients.times(grad_loss), None, None, None, None)


class Gradients:
    """Of a loss by the head's input and weights, summed over chunks in float32.

    Args:
        hidden: The head's input.
        weight: The head's; None where it is frozen.
        bias: The head's; None where there is none or it is frozen.
    """

    def __init__(self, hidden: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> None:
        self.dtypes = [None if tensor is None else tensor.dtype for tensor in (hidden, weight, bias)]
        self.by_hidden = torch.empty_like(hidden)
        self.by_weight = None if weight is None else torch.zeros_like(weight, dtype=torch.float32)
        self.by_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)

    def add(self, head: Head, hidden: torch.Tensor, chunk: slice, by_output: torch.Tensor) -> None:
        """Take in the gradient by a chunk of the head's output."""
        self.by_hidden[chunk] = by_output @ head.weight
        inputs = hidden[chunk].to(by_output.dtype)
        if self.by_weight is not None and by_output.dtype == torch.float32:
            self.by_weight.addmm_(by_output.T, inputs)
        elif self.by_weight is not None:
            self.by_weight += by_output.T @ inputs
        if self.by_bias is not None:
            self.by_bias += by_output.sum(dim=0)

    def times(self, factor: torch.Tensor) -> list[torch.Tensor | None]:
        """By hidden, weight and bias, in their dtypes, times a scalar."""
        tensors = (self.by_hidden, self.by_weight, self.by_bias)
        return [
            None if tensor is None else tensor.mul_(factor).to(dtype)
            for tensor, dtype in zip(tensors, self.dtypes, strict=True)
        ]


def value_and_slopes(pair_loss: PairLoss, scored: Scored, pairs: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """A loss, and its gradient by each log-probability."""
    with torch.enable_grad():
        leaf = scored.logps.detach().requires_grad_()
        loss = pair_loss(scored._replace(logps=leaf), pairs)
        (slopes,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), slopes


def groups_of_pairs(lengths: Sequence[int], chunk_tokens: int) -> Iterator[tuple[slice, slice]]:
    """Runs of pairs whose completions fit a chunk together, at least one pair each.

    Args:
        lengths: Tokens of chosen and rejected, pair after pair.
        chunk_tokens: Most tokens together.

    Yields:
        The pairs and their completion tokens. [3, 2, 4, 1, 9, 9], 10 tokens: pairs 0 to 1, then pair 2.
    """
    first = start = end = 0
    for pair, tokens in enumerate(a + b for a, b in zip(lengths[::2], lengths[1::2], strict=True)):
        if pair > first and end + tokens - start > chunk_tokens:
            yield slice(first, pair), slice(start, end)
            first, start = pair, end
        end += tokens
    yield slice(first, len(lengths) // 2), slice(start, end)


def chunks_of(tokens: slice, size: int) -> list[slice]:
    return [slice(start, min(start + size, tokens.stop)) for start in range(tokens.start, tokens.stop, size)]


def sum_by_length(values: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Sums of consecutive runs of so many values."""
    return torch.stack([run.sum() for run in torch.split(values, list(lengths))])
