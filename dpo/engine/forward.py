"""Runs a model over a pack through the model's own forward, and its head on completion tokens only."""

__all__ = ["TOLERANCE", "PackedForward", "plain_token_logps"]

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from dpo.engine.attention import PACKED, register
from dpo.engine.logps import Completions, LogitTransform, PairLoss, Scored, completion_loss, score_completions
from dpo.engine.packing import Pack, pack_pairs
from dpo.models.attention import attention_of

Result = TypeVar("Result")

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 2e-2}
"""Largest difference between two ways to compute the same log-probability, relative plus nats, by the model's dtype."""


class PackedForward:
    """Runs a model over packs, also if DeepSpeed, DDP or PEFT wrap it.

    The constructor switches the model to the attention of a back end. Hooks compute the head inside the model's
    forward, where DeepSpeed or FSDP has gathered sharded weights.

    Args:
        model: The model itself, without a wrapper.
        backend: A name in BACKENDS.
        ld_alpha: Weight of the tokens beyond the length of the shorter answer, as in Pack.token_weights. None: 1.
    """

    def __init__(self, model: PreTrainedModel, backend: str, ld_alpha: float | None = None) -> None:
        register()
        self.model = model
        self.ordinary = attention_of(model)
        self.packed = PACKED.format(backend)
        model.set_attn_implementation(self.packed)
        self.head: nn.Module = model.get_output_embeddings()
        self.transform = LogitTransform.of(model.config)
        self.ld_alpha = ld_alpha

    @property
    def device(self) -> torch.device:
        """The device that packs must be on: the head's. Layers on other devices receive their inputs there."""
        weight: torch.Tensor = self.head.get_parameter("weight")
        return weight.device

    @contextmanager
    def ordinary_attention(self) -> Iterator[None]:
        """Use the attention that the model was loaded with, for generation and for padded batches."""
        self.model.set_attn_implementation(self.ordinary)
        try:
            yield
        finally:
            self.model.set_attn_implementation(self.packed)

    def logps(self, model: nn.Module, pack: Pack) -> torch.Tensor:
        """Return the log-probabilities of a pack's completions, without gradients.

        Args:
            model: The model, wrapped or not.
            pack: The pack, on the head's device.

        Returns:
            Summed over each completion's tokens, chosen before rejected, nats, float32 (2 x pairs,).
        """
        return self.score(model, pack).logps

    def score(self, model: nn.Module, pack: Pack, *, wants_confidences: bool = False) -> Scored:
        """Score a pack's completions, without gradients.

        Args:
            model: The model, wrapped or not.
            pack: The pack, on the head's device.
            wants_confidences: Whether to compute confidences too.

        Returns:
            Log-probabilities and, if requested, confidences, float32 (2 x pairs,).
        """
        with torch.no_grad():
            scored, _ = self.run(model, pack, score_completions, wants_confidences)
        return scored

    def loss(
        self,
        model: nn.Module,
        pack: Pack,
        pair_loss: PairLoss,
        *,
        compares_pairs: bool = False,
        wants_confidences: bool = False,
    ) -> tuple[torch.Tensor, Scored]:
        """Compute the sum of a pack's losses, differentiable with respect to the model's weights.

        Args:
            model: The model, wrapped or not.
            pack: The pack, on the head's device.
            pair_loss: Function from the scores of some pairs to the sum of their losses.
            compares_pairs: Whether pair_loss needs all pairs of the pack in one call.
            wants_confidences: Whether pair_loss needs confidences.

        Returns:
            The loss, a float32 scalar, and the scores of the completions, detached.
        """
        score = partial(completion_loss, pair_loss=pair_loss, compares_pairs=compares_pairs)
        (loss, scored), logits = self.run(model, pack, score, wants_confidences)
        if model is not self.model:
            # A wrapper that shards the weights gathers the head's weights in backward only after the model's output
            # has received a gradient.
            loss = _Anchor.apply(loss, logits)  # type: ignore[no-untyped-call]
        return loss, scored

    def run(
        self, model: nn.Module, pack: Pack, score: Callable[..., Result], wants_confidences: bool
    ) -> tuple[Result, torch.Tensor]:
        """Call the model, and score the hidden states that its head receives.

        Args:
            model: The model, wrapped or not.
            pack: The pack, on the head's device.
            score: score_completions, or completion_loss with its pair_loss bound.
            wants_confidences: Whether to compute confidences too.

        Returns:
            The result of score, and the model's logits at one token, (1, 1, vocabulary).
        """
        completions = Completions(
            targets=pack.targets,
            lengths=pack.completion_lengths,
            token_weights=None if self.ld_alpha is None else pack.token_weights(self.ld_alpha),
            wants_confidences=wants_confidences,
        )
        hidden: list[torch.Tensor] = []
        result: list[Result] = []

        def keep_hidden(head: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            states = inputs[0][0]
            hidden.append(states.index_select(0, pack.logit_index.to(states.device)))
            return (inputs[0][:, -1:],)

        def score_hidden(head: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            weight: Any = head.weight
            result.append(score(hidden[0].to(weight.device), weight, head.bias, completions, self.transform))

        hooks = [
            self.head.register_forward_pre_hook(keep_hidden),
            # This hook must run first, because DeepSpeed's own hook frees the gathered weights.
            self.head.register_forward_hook(score_hidden, prepend=True),
        ]
        try:
            outputs = model(
                input_ids=pack.input_ids, position_ids=pack.position_ids, use_cache=False, layout=pack.layout
            )
        finally:
            for hook in hooks:
                hook.remove()
        return result[0], outputs.logits

    def plain_logps(self, model: nn.Module, pair: dict[str, Any]) -> torch.Tensor:
        """Compute the result of logps for one pair without packing: two rows, ordinary attention, all logits at once.

        Args:
            model: The model, wrapped or not.
            pair: Token ids of the pair.

        Returns:
            Log-probabilities of chosen and rejected, nats, float32 (2,). A pair without a rejected answer has 0 there.
        """
        with self.ordinary_attention():
            logps = plain_token_logps(model, pair, self.model.device)
        if self.ld_alpha is not None:
            pack = pack_pairs([pair], [0])
            weights = torch.split(pack.token_weights(self.ld_alpha).to(self.model.device), pack.completion_lengths)
            logps = [values * token_weights for values, token_weights in zip(logps, weights, strict=True)]
        sums = torch.stack([values.sum() for values in logps])
        return functional.pad(sums, (0, 2 - len(sums)))  # 0, the log of probability 1, for a missing rejected answer


@torch.no_grad()
def plain_token_logps(model: nn.Module, pair: Mapping[str, Any], device: torch.device) -> list[torch.Tensor]:
    """Return the log-probability of each completion token. Each answer is a separate row, with all logits at once.

    Args:
        model: A causal language model with its ordinary attention.
        pair: Token ids of the pair.
        device: Device of the model's inputs.

    Returns:
        One tensor for chosen and, if there is a rejected answer, one for rejected; nats, float32 (completion tokens,).
    """
    logps = []
    for completion in filter(len, (pair["chosen_ids"], pair["rejected_ids"])):
        ids = torch.tensor([[*pair["prompt_ids"], *completion]], device=device)
        logits = model(input_ids=ids, use_cache=False).logits[0, -len(completion) - 1 : -1].float()
        logps.append(logits.log_softmax(dim=1).gather(1, ids[0, -len(completion) :, None])[:, 0])
    return logps


class _Anchor(torch.autograd.Function):
    """Returns the first argument. Its backward gives the second argument a gradient of zeros."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(logits)
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (logits,) = ctx.saved_tensors
        return grad_loss, torch.zeros_like(logits)
