"""The packed engine: trl.DPOTrainer on packs, each prompt computed once, with a reference that is kept."""

__all__ = ["PackedTrainer", "Reference"]

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput
from trl.models.utils import prepare_deepspeed
from trl.trainer.utils import use_adapter

from dpo.engine.forward import PackedForward
from dpo.engine.loading import PackedPairs, TrainBatches, count_tokens, pack_loader
from dpo.engine.logps import Scored
from dpo.engine.packing import Pack, pack_pairs
from dpo.engine.planning import plan_all
from dpo.engine.recomputing import recompute_elementwise
from dpo.engine.reference_cache import ReferenceCache
from dpo.engine.reference_pass import TOLERANCE, ReferencePass
from dpo.errors import ModelError
from dpo.objective.metrics import Metrics
from dpo.objective.terms import pairs_of
from dpo.objective.weighting import MarginWeights
from dpo.training.distributed import is_fsdp
from dpo.training.policy.lora import base_model, drop_reference_adapter
from dpo.training.settings.objective import objective_of
from dpo.training.settings.resolving import TrainingConfig
from dpo.training.trainers.padded import PreferenceTrainer
from dpo.training.trainers.steps import micro_batches_for, steps_of_run


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A reference that computes before training, and is let go."""

    load: Callable[[], PreTrainedModel | PeftModel] | None
    """Loads it. None: it is the policy without its adapter."""
    cache: ReferenceCache


class PackedTrainer(PreferenceTrainer):
    """trl.DPOTrainer on packs of pairs or, at the stage sft, of answers, which are pairs without a rejected one.

    Overridden, beside what PreferenceTrainer overrides: the two data loaders, which give packs that are dealt evenly;
    `get_batch_samples`, which counts what a step's mean is over; `_compute_loss`; `_precompute_ref_logps`, which asks
    the reference cache; `evaluation_loop` and `log`, for means over pairs or over tokens.

    Args:
        model: The policy.
        args: The run's flags. Accumulation grows where max_tokens_per_micro_batch asks for it.
        train_dataset: Pairs as token ids, and their scores where the run weighs by them.
        eval_dataset: Held-out ones.
        backend: A name in packed_attention.BACKENDS.
        ref_model: A reference that computes as training goes on, or None.
        reference: A reference that computes beforehand. With neither, the policy with its adapter off is the
            reference, unless the losses have none.
        options: Of trl.DPOTrainer.
    """

    loss_is_scaled_for_ga = True
    ref_model: Any

    def __init__(
        self,
        *,
        model: PreTrainedModel | PeftModel,
        args: TrainingConfig,
        train_dataset: Any,
        eval_dataset: Any = None,
        backend: str,
        ref_model: PreTrainedModel | None = None,
        reference: Reference | None = None,
        **options: Any,
    ) -> None:
        self.backend = backend
        self.train_tokens = count_tokens(train_dataset)
        steps = steps_of_run(args, len(self.train_tokens))
        name = "{source}, row {row}".format
        args.set_accumulation(
            micro_batches_for(args, self.train_tokens, steps, lambda pair: name(**train_dataset[pair]))
        )
        self.policy = PackedForward(base_model(model), backend, args.ld_alpha)
        if not args.gradient_checkpointing:  # which computes whole layers again
            recompute_elementwise(self.policy.model)
        self.objective = objective_of(args)
        self.live_reference = None if ref_model is None else PackedForward(ref_model, backend, args.ld_alpha)
        self.reference = reference
        self.reference_pass: ReferencePass | None = None
        self.reference_logps: dict[str, torch.Tensor] = {}
        self.is_checked = False
        self.seen = {self.objective.unit: 0, "tokens": 0, "tokens_unshared": 0}
        self.step_items = int(args.global_batch_size or 1)
        self.weights: dict[str, torch.Tensor] = {}
        if args.weight_by_score:
            by_margin = MarginWeights.of(train_dataset)
            held_out = {} if eval_dataset is None else {"eval": eval_dataset}
            self.weights = {
                name: by_margin.weigh(pairs) for name, pairs in ({"train": train_dataset} | held_out).items()
            }
        if reference is not None and reference.load is not None and is_fsdp(args):
            # Beside FSDP TRL loads a reference for every pass before training, and shards it: it is given ours.
            ref_model = reference.load()
            self.live_reference = PackedForward(base_model(ref_model), backend, args.ld_alpha)
        # Or TRL loads a second model.
        args.precompute_ref_log_probs = reference is not None or not self.objective.needs_reference
        super().__init__(
            model=model,
            ref_model=ref_model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            **options,
        )
        args.precompute_ref_log_probs = False
        if reference is not None or not self.objective.needs_reference:
            drop_reference_adapter(self.model)
        self.metrics = Metrics(self.objective)
        self.reference_runtime_s = 0.0 if self.reference_pass is None else self.reference_pass.runtime_s
        # Let the reference go.
        if reference is not None:
            self.ref_model = self.live_reference = None
        self.reference = self.reference_pass = None
        self.accelerator.free_memory()
        gc.collect()

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        if not self.objective.needs_reference:
            self.reference_logps[name] = torch.zeros(len(dataset), 2)
            return dataset
        assert self.reference is not None
        if self.reference_pass is None:
            self.reference_pass = ReferencePass(
                self.reference_forward(self.reference.load),
                self.reference.cache,
                self.accelerator,
                pairs_at_once=self.args.per_device_eval_batch_size,
                max_tokens=self.args.max_tokens_per_micro_batch,
                dtype=self.computing_dtype,
            )
        rows = list(range(len(dataset)))
        if name == "train":  # a run of a few steps asks for no more than it sees
            rows = sorted({row for step in steps_of_run(self.args, len(dataset)) for row in step})
        logps = torch.full((len(dataset), 2), torch.nan)
        logps[rows] = self.reference_pass.run(dataset.select(rows), name)
        self.reference_logps[name] = logps
        return dataset

    def reference_forward(
        self, load: Callable[[], PreTrainedModel | PeftModel] | None
    ) -> Callable[[Pack], torch.Tensor]:
        """The reference's log-probabilities of a pack, by a model of its own or by the policy without its adapter."""
        if load is None:

            def without_adapter(pack: Pack) -> torch.Tensor:
                with self.accelerator.autocast():  # as it will be computed once the policy is wrapped
                    return self.logps_without_adapter(self.model, pack.to(self.pack_device))

            return without_adapter
        if (sharded := self.live_reference) is not None:
            return lambda pack: sharded.logps(self.ref_model, pack.to(self.pack_device))
        model = load()
        forward = PackedForward(base_model(model), self.backend, self.args.ld_alpha)
        wrapped = self.prepare_reference(model)
        return lambda pack: forward.logps(wrapped, pack.to(self.pack_device))

    def prepare_reference(self, model: PreTrainedModel | PeftModel) -> nn.Module:
        """Place a reference as the policy will be: sharded at ZeRO-3, else whole on each device."""
        if self.is_deepspeed_enabled:
            engine: nn.Module = prepare_deepspeed(model, self.accelerator)
            return engine
        prepared: nn.Module = self.accelerator.prepare_model(model, evaluation_mode=True)
        return prepared.eval()

    @property
    def pack_device(self) -> torch.device:
        """This rank's device; of a model that is spread over several, that of the head."""
        return self.policy.device if self.is_model_parallel else self.args.device

    @property
    def computing_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.args.bf16 else torch.float16 if self.args.fp16 else torch.float32

    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        batches = TrainBatches(
            self.order,
            self.train_tokens,
            global_batch_size=self.args.global_batch_size,
            num_micro_batches=self.args.gradient_accumulation_steps,
            rank=self.args.process_index,
            world_size=self.args.world_size,
            drop_last=self.args.dataloader_drop_last,
        )
        return self.loader("train", self.train_dataset, batches)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[dict[str, Any]]:
        if eval_dataset is not None and eval_dataset is not self.eval_dataset:
            raise ValueError("expected the eval_dataset that the trainer was built with, whose reference is known")
        plan = plan_all(
            count_tokens(self.eval_dataset),
            pairs_at_once=self.args.per_device_eval_batch_size,
            world_size=self.args.world_size,
            max_tokens=self.args.max_tokens_per_micro_batch,
        )
        return self.loader("eval", self.eval_dataset, [[row[self.args.process_index]] for row in plan])

    def loader(self, split: str, dataset: Any, batches: Any) -> DataLoader[dict[str, Any]]:
        return pack_loader(
            PackedPairs(dataset, self.reference_logps.get(split), self.weights.get(split)),
            batches,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[dict[str, Any]], Any]:
        samples, num_items = super().get_batch_samples(*args, **kwargs)
        if self.objective.counts_tokens:
            packs = [sample["pack"] for sample in samples if not sample["pack"].is_filler]
            tokens = torch.tensor(sum(len(pack.targets) for pack in packs), device=self.args.device)
            self.step_items = int(self.accelerator.reduce(tokens, reduction="sum"))
        return samples, num_items

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool) -> torch.Tensor:
        """This pack's share of the step's mean loss, times the number of ranks, over which gradients are averaged."""
        pack: Pack = inputs["pack"].to(self.pack_device)
        if not self.is_checked:
            self.check_engine(model)
        ref_logps = self.reference_logps_of(model, pack)
        share = 0 if pack.is_filler else self.args.world_size / self.step_items

        def pair_loss(scored: Scored, pairs: slice) -> torch.Tensor:
            return share * self.objective.loss(pairs_of(pack, scored, ref_logps, pairs)).sum()

        loss, scored = self.policy.loss(
            model,
            pack,
            pair_loss,
            compares_pairs=self.objective.compares_pairs,
            wants_confidences=self.objective.wants_confidences,
        )
        if not pack.is_filler:
            self.metrics.add(pairs_of(pack, scored, ref_logps))
            self.seen[self.objective.unit] += len(pack.rows)
            self.seen["tokens"] += pack.num_tokens
            self.seen["tokens_unshared"] += pack.num_tokens_unshared
        return loss

    def reference_logps_of(self, model: nn.Module, pack: Pack) -> torch.Tensor:
        """The reference's log-probabilities of a pack, known or computed, nats, float32 (2 x pairs,)."""
        if pack.reference_logps is not None:
            return pack.reference_logps
        if self.live_reference is not None:
            return self.live_reference.logps(self.ref_model, pack)
        return self.logps_without_adapter(model, pack)

    def logps_without_adapter(self, model: nn.Module, pack: Pack) -> torch.Tensor:
        """The policy's, its adapter off or as it was at the start."""
        adapted = self.accelerator.unwrap_model(model)
        with use_adapter(adapted, adapter_name="ref" if "ref" in adapted.peft_config else None):
            return self.policy.logps(model, pack)

    def check_engine(self, model: nn.Module) -> None:
        """Compare the log-probabilities of one pair with those of the model's own forward, before the first step.

        Raises:
            ModelError: they differ, so that the model does something that the packed engine does not know of.
        """
        self.is_checked = True
        row = int(np.argmin(self.train_tokens))
        pair = self.train_dataset[row]
        was_training = model.training
        model.eval()
        with self.compute_loss_context_manager():
            packed = self.policy.logps(model, pack_pairs([pair], [row]).to(self.pack_device))
            plain = self.policy.plain_logps(model, pair)
        model.train(was_training)
        if not plain.isfinite().all():
            overflow = " or overflow in float16: pass --bf16 true in place of --fp16" if self.args.fp16 else ""
            raise ModelError(
                f"the model's own forward gives a pair the log-probabilities {plain.tolist()}.\n"
                f"  Its weights are no numbers{overflow}: start from another model or checkpoint."
            )
        tolerance = TOLERANCE[self.computing_dtype]
        if not torch.allclose(packed, plain, rtol=tolerance, atol=tolerance):
            raise ModelError(
                f"--engine packed gives a pair the log-probabilities {packed.tolist()}, and the model's own forward "
                f"{plain.tolist()}.\n  This architecture does something that the packed engine does not know of: pass "
                "--engine padded."
            )

    def evaluation_loop(
        self,
        dataloader: DataLoader[dict[str, Any]],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Means over what is held out. Within or after `train`, which wraps the model."""
        model = self.model_wrapped
        model.eval()
        self.callback_handler.eval_dataloader = dataloader
        metrics = Metrics(self.objective)
        for inputs in dataloader:
            pack = inputs["pack"].to(self.pack_device)
            with torch.no_grad(), self.compute_loss_context_manager():
                scored = self.policy.score(model, pack, wants_confidences=self.objective.wants_confidences)
                ref_logps = self.reference_logps_of(model, pack)
            if not pack.is_filler:
                metrics.add(pairs_of(pack, scored, ref_logps))
            self.control: Any = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        means = {f"{metric_key_prefix}_{name}": value for name, value in metrics.means(self.accelerator).items()}
        return EvalLoopOutput(
            predictions=None,
            label_ids=None,
            metrics=means,
            num_samples=len(dataloader.dataset),  # type: ignore[arg-type]
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if not any(name.startswith("eval_") for name in logs):
            logs |= self.metrics.means(self.accelerator)
        if "train_loss" in logs:  # transformers' is a mean over steps, in which a short last step counts as a whole one
            logs["train_loss"] = self.metrics.mean_loss()
        super().log(logs, start_time)

    def ordinary_attention(self) -> AbstractContextManager[None]:
        return self.policy.ordinary_attention()

    def totals(self) -> dict[str, Any]:
        counts = torch.tensor(list(self.seen.values()), device=self.args.device)
        seen = dict(zip(self.seen, self.accelerator.reduce(counts, reduction="sum").tolist(), strict=True))
        reference = {"reference_runtime": round(self.reference_runtime_s, 4)}
        return super().totals() | {"engine": "packed"} | reference | seen
