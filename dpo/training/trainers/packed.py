"""The packed engine: transformers.Trainer on packs, each prompt computed once, with a cached or live reference."""

__all__ = ["PackedTrainer"]

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from peft import PeftConfig, PeftModel
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput
from trl.models import get_act_offloading_ctx_manager

from dpo.engine.forward import PackedForward
from dpo.engine.loading import PARTS, PackedPairs, TrainBatches, count_tokens, eval_batches, pack_loader
from dpo.engine.logps import Scored
from dpo.engine.recomputing import recompute_elementwise
from dpo.engine.self_check import check_forward
from dpo.errors import ConfigError
from dpo.objective.metrics import Metrics
from dpo.objective.terms import pairs_of
from dpo.objective.weighting import weigh_by_margin
from dpo.training.policy.lora import (
    base_model,
    disable_dropout,
    prepare_policy,
)
from dpo.training.settings.objective import objective_of
from dpo.training.settings.resolving import TrainingConfig
from dpo.training.trainers.base import RunTrainer
from dpo.training.trainers.reference import Reference, ReferenceLogps
from dpo.training.trainers.steps import micro_batches_for, steps_of_run


class PackedTrainer(RunTrainer):
    """transformers.Trainer on packs of pairs or, at the stage sft, of answers, which are pairs without a rejected one.

    Overridden, beside what RunTrainer overrides, public methods alone:
        get_train_dataloader, get_eval_dataloader: packs, dealt evenly to the ranks.
        get_batch_samples: counts what the mean of a step is over.
        compute_loss, training_step: the loss of a pack, with activations offloaded where the flags ask for it.
        evaluation_loop, log: means over pairs or over tokens.

    Args:
        model: The policy, or a model with an adapter whose training continues.
        args: The run's settings. Accumulation grows where max_tokens_per_micro_batch asks for it.
        train_dataset: Pairs as token ids, with source and row, and their scores where the run weighs by them.
        eval_dataset: Held-out ones.
        backend: A name in engine.attention.BACKENDS.
        peft_config: A new adapter to put on the model.
        ref_model: A reference that computes while training runs, or None.
        reference: A reference that computes before training and is freed. With neither, the reference is the policy
            without a new adapter, or with its adapter as it was, unless the losses have no reference.
        options: Of RunTrainer and transformers.Trainer.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *,
        model: PreTrainedModel | PeftModel,
        args: TrainingConfig,
        train_dataset: Any,
        eval_dataset: Any = None,
        backend: str,
        peft_config: PeftConfig | None = None,
        ref_model: PreTrainedModel | None = None,
        reference: Reference | None = None,
        **options: Any,
    ) -> None:
        self.backend = backend
        self.objective = objective_of(args)
        self.train_tokens = count_tokens(train_dataset)
        name = "{source}, row {row}".format
        steps = steps_of_run(args, len(self.train_tokens))
        args.set_accumulation(
            micro_batches_for(args, self.train_tokens, steps, lambda pair: name(**train_dataset[pair]))
        )
        self.weights = weigh_by_margin(train_dataset, eval_dataset) if args.weight_by_score else {}
        copies_adapter = reference is None and self.objective.needs_reference
        model = prepare_policy(model, peft_config, args, copies_adapter=copies_adapter)
        self.args = args
        self.policy = self.packed_forward(model)
        if not args.gradient_checkpointing:  # which computes whole layers again
            recompute_elementwise(self.policy.model)
        if args.use_liger_kernel:  # the layers' kernels alone: the head is computed in chunks already
            args.liger_kernel_config = {**(args.liger_kernel_config or {}), "fused_linear_cross_entropy": False}
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset.select_columns(list(PARTS)),
            eval_dataset=None if eval_dataset is None else eval_dataset.select_columns(list(PARTS)),
            **options,
        )
        if args.n_gpu > 1:
            raise ConfigError(
                f"one process sees {args.n_gpu} GPUs and would split each batch over them with DataParallel, which "
                "--engine packed does not support.\n  Start the run with deepspeed, torchrun or accelerate, or show "
                "the process one GPU: CUDA_VISIBLE_DEVICES=0."
            )
        self.offloading = (
            get_act_offloading_ctx_manager(model=self.model) if args.activation_offloading else nullcontext()
        )
        self.metrics = Metrics(self.objective)
        self.is_checked = False
        self.seen = {self.objective.unit: 0, "tokens": 0, "tokens_unshared": 0}
        self.step_items = int(args.global_batch_size or 1)
        self.reference = ReferenceLogps(
            self.model,
            self.policy,
            self.accelerator,
            pack_device=self.pack_device,
            is_read=self.objective.needs_reference,
        )
        if ref_model is not None:
            self.reference.keep_live(self.packed_forward(ref_model), ref_model)
        if reference is not None:
            self.compute_reference(reference)

    def packed_forward(self, model: PreTrainedModel | PeftModel) -> PackedForward:
        """Make a model compute packs, without its dropout where the flags ask for that."""
        if self.args.disable_dropout:
            disable_dropout(model)
        return PackedForward(base_model(model), self.backend, self.args.ld_alpha)

    def compute_reference(self, reference: Reference) -> None:
        """Compute the reference's log-probabilities of all pairs that the run sees."""
        rows_of_run = {row for step in steps_of_run(self.args, len(self.train_dataset)) for row in step}
        splits = {"train": (self.train_dataset, sorted(rows_of_run))}
        if self.eval_dataset is not None:
            splits["eval"] = (self.eval_dataset, list(range(len(self.eval_dataset))))
        self.reference.compute_before(
            reference,
            self.packed_forward,
            splits,
            pairs_at_once=self.args.per_device_eval_batch_size,
            max_tokens=self.args.max_tokens_per_micro_batch,
            dtype=self.computing_dtype,
        )

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
            global_batch_size=int(self.args.global_batch_size or 1),
            num_micro_batches=int(self.args.gradient_accumulation_steps or 1),
            rank=self.args.process_index,
            world_size=self.args.world_size,
            drop_last=self.args.dataloader_drop_last,
        )
        return self.loader("train", self.train_dataset, batches)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[dict[str, Any]]:
        if eval_dataset is not None and eval_dataset is not self.eval_dataset:
            raise ValueError("expected the eval_dataset that the trainer was built with, whose reference is known")
        batches = eval_batches(
            count_tokens(self.eval_dataset),
            pairs_at_once=self.args.per_device_eval_batch_size,
            rank=self.args.process_index,
            world_size=self.args.world_size,
            max_tokens=self.args.max_tokens_per_micro_batch,
        )
        return self.loader("eval", self.eval_dataset, batches)

    def loader(self, split: str, dataset: Any, batches: Any) -> DataLoader[dict[str, Any]]:
        return pack_loader(
            PackedPairs(dataset, self.reference.known.get(split), self.weights.get(split)),
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

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        with self.offloading:
            loss: torch.Tensor = super().training_step(*args, **kwargs)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """This pack's share of the step's mean loss, times the number of ranks, over which gradients are averaged."""
        pack = inputs["pack"].to(self.pack_device)
        if not self.is_checked:
            self.is_checked = True
            shortest = self.train_dataset[int(np.argmin(self.train_tokens))]
            check_forward(self.policy, model, shortest, device=self.pack_device, dtype=self.computing_dtype)
        ref_logps = self.reference.of(model, pack)
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
                ref_logps = self.reference.of(model, pack)
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
        reference = {"reference_runtime": round(self.reference.runtime_s, 4)}
        return super().totals() | {"engine": "packed"} | reference | seen
