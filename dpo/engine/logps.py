"""Log-probabilities of completions and their gradients. No (tokens x vocabulary) tensor outlives its chunk.

The head of a language model takes much of the compute of DPO and most of its memory: 49,152 logits per token for
SmolLM2. Here the head runs on completion tokens only, a few pairs at a time. The loss of a pair depends only on the
log-probabilities of that pair. So its gradient is computed while its logits are still in memory, and no logit is
computed twice. There are two exceptions: a pair that does not fit into one chunk, and a loss that compares pairs.
"""

__all__ = ["Completions", "LogitTransform", "PairLoss", "Scored", "completion_loss", "score_completions"]

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from transformers import PreTrainedConfig

CHUNK_LOGITS = 2**26
"""Most logits in memory at once, 256 MiB in float32: 1,365 completion tokens of SmolLM2, 523 of Llama 3."""


class Scored(NamedTuple):
    """Scores of completions under a model, chosen before rejected, pair after pair."""

    logps: torch.Tensor
    """Log-probabilities, summed over each completion's tokens, nats, float32 (2 x pairs,)."""
    confidences: torch.Tensor | None = None
    """exp of the mean over each completion's tokens of log p - log(sum over the vocabulary of p^2), (2 x pairs,)."""


PairLoss = Callable[[Scored, slice], torch.Tensor]
"""Function from the scores of some of the pack's pairs, and the slice of these pairs, to the sum of their losses."""


@dataclass(frozen=True, kw_only=True)
class Completions:
    """The completions to score, chosen before rejected, pair after pair."""

    targets: torch.Tensor
    """The completion tokens, int64 (completion tokens,)."""
    lengths: Sequence[int]
    """Length of each completion, in tokens."""
    token_weights: torch.Tensor | None = None
    """Weight of each token's log-probability in its completion's sum, (completion tokens,). None: 1."""
    wants_confidences: bool = False
    """Whether to compute Scored.confidences."""

    def scored(self, values: Sequence[torch.Tensor], pairs: slice, tokens: slice) -> Scored:
        """Reduce the values of some pairs' tokens to one value per completion.

        Args:
            values: Scores.values of these tokens, in chunks.
            pairs: The pairs.
            tokens: The completion tokens of these pairs.
        """
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
    """How a model turns its head's output into logits: logits = softcap tanh(scale x output / softcap)."""

    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, config: PreTrainedConfig) -> "LogitTransform":
        """Read the transform from a model's configuration.

        Gemma 2 soft-caps, Cohere and Falcon-H1 multiply, Granite divides.
        """
        config = config.get_text_config()
        scale = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None)
        if scale is None:
            scale = 1 / (getattr(config, "logits_scaling", None) or 1.0)
        return cls(scale=scale, softcap=getattr(config, "final_logit_softcapping", None))

    def forward_(self, output: torch.Tensor) -> torch.Tensor:
        """Turn the head's output into logits, in place."""
        if self.scale != 1:
            output.mul_(self.scale)
        if self.softcap is not None:
            output.div_(self.softcap).tanh_().mul_(self.softcap)
        return output

    def softcap_slope(self, logits: torch.Tensor) -> torch.Tensor | None:
        """Return the derivative of the soft-capping, computed from its result. None without soft-capping."""
        return None if self.softcap is None else 1 - (logits / self.softcap).square_()


@dataclass(frozen=True, kw_only=True)
class Head:
    """A head's weights in the dtype of its matrix products, and the transform of its output."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    transform: LogitTransform
    wants_confidences: bool

    @classmethod
    def for_computing(
        cls, weight: torch.Tensor, bias: torch.Tensor | None, transform: LogitTransform, completions: Completions
    ) -> "Head":
        """Cast the weights once for all chunks. autocast would cast them again for each chunk."""
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
        """Compute the log-probabilities of a chunk's targets, and what their gradient needs.

        Args:
            hidden: Hidden state that predicts each target, (tokens, width).
            targets: int64 (tokens,).
        """
        logits = functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias).float()
        logits = self.transform.forward_(logits)
        slope = self.transform.softcap_slope(logits)
        largest = logits.amax(dim=1, keepdim=True)
        of_targets = logits.gather(1, targets[:, None]) - largest
        exps = logits.sub_(largest).exp_()
        sums = exps.sum(dim=1, keepdim=True)
        values = [(of_targets - sums.log())[:, 0]]
        if self.wants_confidences:  # p = exps / sums, and the sum of squares of exps is the square of their norm
            values.append(values[0] - 2 * (torch.linalg.vector_norm(exps, dim=1).log() - sums[:, 0].log()))
        return Scores(values=torch.stack(values), exps=exps, sums=sums, softcap_slope=slope)

    def gradient(self, scores: "Scores", targets: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        """Compute the gradient with respect to the head's output.

        Args:
            scores: The chunk's scores. Their memory is overwritten.
            targets: int64 (tokens,).
            slopes: Gradient with respect to each target's log-probability, (tokens,).

        Returns:
            (tokens, vocabulary), in the dtype of the head's weights.
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
    """The softmax of a chunk of logits, as numerators and denominators."""

    values: torch.Tensor
    """Log-probabilities and, if requested, log-confidences of the targets, nats, float32 (1 or 2, tokens)."""
    exps: torch.Tensor
    """exp(logit - largest logit of the row), float32 (tokens, vocabulary)."""
    sums: torch.Tensor
    """Sum of each row of exps, (tokens, 1)."""
    softcap_slope: torch.Tensor | None


def score_completions(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    completions: Completions,
    transform: LogitTransform,
) -> Scored:
    """Compute the log-probabilities of completions, without gradients.

    Args:
        hidden: Hidden state that predicts each completion token, (completion tokens, width).
        weight: The head's weight, (vocabulary, width).
        bias: The head's bias, (vocabulary,), or None.
        completions: The completions to score.
        transform: How the head's output becomes logits.

    Returns:
        Log-probabilities in nats and, if requested, confidences, float32 (2 x pairs,).
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
    """Compute the sum of the pairs' losses, differentiable with respect to hidden, weight and bias.

    Args:
        hidden: Hidden state that predicts each completion token, (completion tokens, width).
        weight: The head's weight, (vocabulary, width).
        bias: The head's bias, (vocabulary,), or None.
        completions: The completions to score.
        transform: How the head's output becomes logits.
        pair_loss: Function from the scores of some pairs to the sum of their losses.
        compares_pairs: Whether pair_loss needs all pairs in one call. Logits that fill more than one chunk are then
            computed twice. If False, pair_loss is called for a few pairs at a time.

    Returns:
        The loss, a float32 scalar, and the scores of the completions, detached.
    """
    loss, *scored = _CompletionLoss.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, completions, transform, pair_loss, compares_pairs
    )
    return loss, Scored(*scored)


class _CompletionLoss(torch.autograd.Function):
    """Computes the loss and its gradients in forward. backward returns these gradients."""

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
                # Logits are computed twice only if a group does not fit into one chunk.
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
    """Gradients of a loss with respect to the head's input and weights. Those of the weights are summed in float32.

    Args:
        hidden: The head's input.
        weight: The head's weight. None if it is frozen.
        bias: The head's bias. None if there is none, or if it is frozen.
    """

    def __init__(self, hidden: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> None:
        self.dtypes = [None if tensor is None else tensor.dtype for tensor in (hidden, weight, bias)]
        self.by_hidden = torch.empty_like(hidden)
        self.by_weight = None if weight is None else torch.zeros_like(weight, dtype=torch.float32)
        self.by_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)

    def add(self, head: Head, hidden: torch.Tensor, chunk: slice, by_output: torch.Tensor) -> None:
        """Add the gradient with respect to a chunk of the head's output."""
        self.by_hidden[chunk] = by_output @ head.weight
        inputs = hidden[chunk].to(by_output.dtype)
        if self.by_weight is not None and by_output.dtype == torch.float32:
            self.by_weight.addmm_(by_output.T, inputs)
        elif self.by_weight is not None:
            self.by_weight += by_output.T @ inputs
        if self.by_bias is not None:
            self.by_bias += by_output.sum(dim=0)

    def times(self, factor: torch.Tensor) -> list[torch.Tensor | None]:
        """Return the gradients of hidden, weight and bias times a scalar, each in the dtype of its tensor."""
        tensors = (self.by_hidden, self.by_weight, self.by_bias)
        return [
            None if tensor is None else tensor.mul_(factor).to(dtype)
            for tensor, dtype in zip(tensors, self.dtypes, strict=True)
        ]


def value_and_slopes(pair_loss: PairLoss, scored: Scored, pairs: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute a loss, and its gradient with respect to each log-probability."""
    with torch.enable_grad():
        leaf = scored.logps.detach().requires_grad_()
        loss = pair_loss(scored._replace(logps=leaf), pairs)
        (slopes,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), slopes


def groups_of_pairs(lengths: Sequence[int], chunk_tokens: int) -> Iterator[tuple[slice, slice]]:
    """Group consecutive pairs whose completions fit into one chunk. A group has at least one pair.

    Args:
        lengths: Length of chosen and rejected in tokens, pair after pair.
        chunk_tokens: Most tokens per group of several pairs.

    Yields:
        The slice of the pairs, and the slice of their completion tokens. Lengths [3, 2, 4, 1, 9, 9] and 10 tokens give
        pairs 0 to 1, then pair 2.
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
    """Sum consecutive runs of values. [1, 2, 3] with lengths [2, 1] gives [3, 3]."""
    return torch.stack([run.sum() for run in torch.split(values, list(lengths))])
