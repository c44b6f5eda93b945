"""The reference of a run: a model that computes while training runs, one that computes before, or the policy itself."""

__all__ = ["Reference", "ReferenceLogps"]

import gc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel
from trl.models import prepare_deepspeed, prepare_fsdp

from dpo.engine.forward import PackedForward
from dpo.engine.packing import Pack
from dpo.engine.reference_cache import ReferenceCache
from dpo.engine.reference_pass import ReferencePass
from dpo.training.policy.lora import reference_adapter


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A reference that computes before training and is freed."""

    load: Callable[[], PreTrainedModel | PeftModel] | None
    """Loads it. None: it is the policy without its adapter."""
    cache: ReferenceCache


class ReferenceLogps:
    """The reference's log-probabilities of packs: computed before training, or while it runs.

    Args:
        model: The policy, not wrapped yet.
        policy: Its forward, for a reference that is the policy without its adapter.
        accelerator: The ranks.
        pack_device: Where packs are computed on this rank.
        is_read: Whether the losses read a reference. If not, its log-probabilities are 0.
    """

    def __init__(
        self,
        model: nn.Module,
        policy: PackedForward,
        accelerator: Accelerator,
        *,
        pack_device: torch.device,
        is_read: bool,
    ) -> None:
        self.model = model
        self.policy = policy
        self.accelerator = accelerator
        self.pack_device = pack_device
        self.is_read = is_read
        self.known: dict[str, torch.Tensor] = {}
        """By split: float32 (pairs, 2), chosen and rejected, NaN for pairs that the run does not see."""
        self.live: tuple[PackedForward, nn.Module] | None = None
        """A model that computes while training runs."""
        self.runtime_s = 0.0
        """Seconds spent before training on what the cache did not know."""

    def keep_live(self, forward: PackedForward, model: PreTrainedModel | PeftModel) -> None:
        """Let a model compute while training runs."""
        self.live = (forward, place_reference(model, self.accelerator))

    def compute_before(
        self,
        reference: Reference,
        forward_of: Callable[[PreTrainedModel | PeftModel], PackedForward],
        splits: Mapping[str, tuple[Any, Iterable[int]]],
        **options: Any,
    ) -> None:
        """Read log-probabilities from the cache, compute those that are missing, and free the model.

        Args:
            reference: The reference.
            forward_of: Makes a model compute packs.
            splits: Pairs by split, and the rows that the run sees.
            options: Of ReferencePass.
        """
        reference_pass = ReferencePass(
            self.forward(reference.load, forward_of), reference.cache, self.accelerator, **options
        )
        for split, (pairs, rows) in splits.items():
            rows = list(rows)
            logps = torch.full((len(pairs), 2), torch.nan)
            logps[rows] = reference_pass.run(pairs.select(rows), split)
            self.known[split] = logps
        self.runtime_s = reference_pass.runtime_s
        del reference_pass
        self.accelerator.free_memory()
        gc.collect()

    def forward(
        self,
        load: Callable[[], PreTrainedModel | PeftModel] | None,
        forward_of: Callable[[PreTrainedModel | PeftModel], PackedForward],
    ) -> Callable[[Pack], torch.Tensor]:
        """A function from a pack to the log-probabilities of its completions, float32 (2 x pairs,)."""
        if load is None:

            def by_policy(pack: Pack) -> torch.Tensor:
                with self.accelerator.autocast():  # as it will be computed once the policy is wrapped
                    return self.by_policy(self.model, pack.to(self.pack_device))

            return by_policy
        model = load()
        forward = forward_of(model)
        placed = place_reference(model, self.accelerator)
        return lambda pack: forward.logps(placed, pack.to(self.pack_device))

    def of(self, model: nn.Module, pack: Pack) -> torch.Tensor:
        """Log-probabilities of a pack's completions, chosen before rejected, nats, float32 (2 x pairs,).

        Args:
            model: The policy, wrapped or not.
            pack: On its device.
        """
        if pack.reference_logps is not None:
            return pack.reference_logps
        if not self.is_read:
            return torch.zeros(2 * len(pack.rows), device=pack.input_ids.device)
        if self.live is not None:
            forward, placed = self.live
            return forward.logps(placed, pack)
        return self.by_policy(model, pack)

    def by_policy(self, model: nn.Module, pack: Pack) -> torch.Tensor:
        """What the policy computes without its adapter, or with the adapter as it was at the start."""
        with reference_adapter(self.accelerator.unwrap_model(model)):
            return self.policy.logps(model, pack)


def place_reference(model: PreTrainedModel | PeftModel, accelerator: Accelerator) -> nn.Module:
    """Place a reference as the policy will be placed: sharded at ZeRO-3 and under FSDP, else whole on each device.

    Returns:
        The model in evaluation mode, wrapped where it is sharded.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        engine: nn.Module = prepare_deepspeed(model, accelerator)
        return engine
    if accelerator.distributed_type == DistributedType.FSDP:
        sharded: nn.Module = prepare_fsdp(model, accelerator)
        return sharded
    placed: nn.Module = accelerator.prepare_model(model, evaluation_mode=True)
    return placed.eval()
