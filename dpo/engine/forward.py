"""A model run over a pack through its own forward, with its head on completion tokens alone."""

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
"""Largest relative difference between two ways to the same log-probability, by the dtype that computes."""


class PackedForward:
    """Runs a model over packs, also where DeepSpeed, DDP or PEFT wrap it.

    The model takes the attention of a back end from here on. Its head is reached through hooks inside the model's
    forward, where whoever shards weights has gathered them.

    Args:
        model: The model itself, unwrapped.
        backend: A name in BACKENDS.
        ld_alpha: What tokens behind the shorter answer's length count, as in Pack.token_weights. None: 1.
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
        """Where a pack is to be: with the head, whose work is done there. Layers elsewhere are sent what they need."""
        weight: torch.Tensor = self.head.get_parameter("weight")
        return weight.device

    @contextmanager
    def ordinary_attention(self) -> Iterator[None]:
        """The attention that the model came with, for generation and for batches that are padded."""
        self.model.set_attn_implementation(self.ordinary)
        try:
            yield
        finally:
            self.model.set_attn_implementation(self.packed)

    def logps(self, model: nn.Module, pack: Pack) -> torch.Tensor:
        """Log-probabilities of a pack's completions without a gradient, as in Scored."""
        return self.score(model, pack).logps

    def score(self, model: nn.Module, pack: Pack, *, wants_confidences: bool = False) -> Scored:
        """A pack's completions without a gradient.

        Args:
            model: The model, wrapped or not.
            pack: On the model's device.
            wants_confidences: Whether they are needed too.
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
        """The sum of a pack's losses, differentiable by the model's weights, and its completions as in score.

        Args:
            model: The model, wrapped or not.
            pack: On the model's device.
            pair_loss: From some pairs to the sum of their losses.
            compares_pairs: Whether it must be given all of the pack's pairs at once.
            wants_confidences: Whether it needs them.
        """
        score = partial(completion_loss, pair_loss=pair_loss, compares_pairs=compares_pairs)
        (loss, scored), logits = self.run(model, pack, score, wants_confidences)
        if model is not self.model:
            # Whatever shards the weights waits for a gradient of the model's output before it gathers the head's.
            loss = _Anchor.apply(loss, logits)  # type: ignore[no-untyped-call]
        return loss, scored

    def run(
        self, model: nn.Module, pack: Pack, score: Callable[..., Result], wants_confidences: bool
    ) -> tuple[Result, torch.Tensor]:
        """Call the model, and score the hidden states that its head is given.

        Returns:
            What score gives, and the model's logits at one token, (1, 1, vocabulary).
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
            # First, since DeepSpeed's own hook lets the gathered weights go.
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
        """What logps gives for one pair, the plain way: two rows, ordinary attention, every logit at once.

        Returns:
            Nats, float32 (2,).
        """
        with self.ordinary_attention():
            logps = plain_token_logps(model, pair, self.model.device)
        if self.ld_alpha is not None:
            pack = pack_pairs([pair], [0])
            weights = torch.split(pack.token_weights(self.ld_alpha).to(self.model.device), pack.completion_lengths)
            logps = [values * of_tokens for values, of_tokens in zip(logps, weights, strict=True)]
        sums = torch.stack([values.sum() for values in logps])
        return functional.pad(sums, (0, 2 - len(sums)))  # no rejected answer has probability 1


@torch.no_grad()
def plain_token_logps(model: nn.Module, pair: Mapping[str, Any], device: torch.device) -> list[torch.Tensor]:
    """Log-probabilities of the tokens of chosen and, where there is one, of rejected, nats, float32.

    Two rows, every logit at once.
    """
    logps = []
    for completion in filter(len, (pair["chosen_ids"], pair["rejected_ids"])):
        ids = torch.tensor([[*pair["prompt_ids"], *completion]], device=device)
        logits = model(input_ids=ids, use_cache=False).logits[0, -len(completion) - 1 : -1].float()
        logps.append(logits.log_softmax(dim=1).gather(1, ids[0, -len(completion) :, None])[:, 0])
    return logps


class _Anchor(torch.autograd.Function):
    """The first argument; its backward gives the second one a gradient of zeros."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(logits)
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (logits,) = ctx.saved_tensors
        return grad_loss, torch.zeros_like(logits)
