"""TRL's trainers on our token ids: what every run of ours does alike, and the padded engine for pairs."""

__all__ = ["RunTrainer"]

import os
import resource
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback

from dpo.engine.order import EpochOrder
from dpo.training.distributed import is_fsdp, shard_between_cpus
from dpo.training.lifecycle.soundness import EndOnNan
from dpo.training.policy.lora import complete_reference_adapter


class RunTrainer(Trainer):
    """What our runs do otherwise than transformers' and TRL's trainers. Stands before one of theirs.

    Overridden: `_get_train_sampler`, so that both engines take the same rows in the same step; `_get_learning_rate`,
    since a scheduler that DeepSpeed steps is one step ahead when the log asks; `create_accelerator_and_postprocess`,
    which would leave FSDP off between CPU ranks; `_run_epoch`, which would take one step more where a run goes on
    from a checkpoint of its last, within an epoch; `_save` and `create_model_card`, for what is left on disk.

    Args:
        model: The model, or one with an adapter that goes on.
        card: Gives the model card. Without it there is none.
    """

    def __init__(
        self,
        *args: Any,
        model: nn.Module,
        card: Callable[["RunTrainer"], str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, model=model, callbacks=[AdapterAsLoaded(self, model)], **kwargs)
        self.card = card
        if isinstance(self.model, PeftModel):
            set_lora_dropout(self.model)
        self.order = EpochOrder.of(self.args, len(self.train_dataset))
        self.add_callback(FollowEpochs(self.order))
        self.rate_of_step: float | None = None
        self.add_callback(NoteRate(self))
        self.add_callback(EndOnNan(skips=self.is_deepspeed_enabled or self.args.fp16))

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if is_fsdp(self.args) and self.accelerator.distributed_type is DistributedType.MULTI_CPU:
            shard_between_cpus(self.accelerator, self.args)
            self.is_fsdp_enabled = True

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.args.train_sampling_strategy in ("random", "sequential"):
            return self.order
        return super()._get_train_sampler(train_dataset)

    def _run_epoch(self, **options: Any) -> None:
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(**options)

    def scheduled_rate(self) -> float:
        """What the scheduler says now."""
        return float(super()._get_learning_rate())

    def _get_learning_rate(self) -> float:
        return self.scheduled_rate() if self.rate_of_step is None else self.rate_of_step

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        model = self.accelerator.unwrap_model(self.model)
        if state_dict and isinstance(model, PreTrainedModel):
            # DeepSpeed gives copies, by which a tied head is no longer known for the embedding it is.
            state_dict = {name: t for name, t in state_dict.items() if name not in model.all_tied_weights_keys}
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        for file in folder.glob("*.safetensors"):
            file.chmod(0o666 & ~current_umask())  # safetensors makes them the owner's alone
        if isinstance(model, PeftModel):
            # How generation ends, which an adapter does not hold; and the adapter that TRL keeps as the reference.
            model.get_base_model().generation_config.save_pretrained(folder)
            shutil.rmtree(folder / "ref", ignore_errors=True)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        if self.card is not None and self.is_world_process_zero():
            (Path(self.args.output_dir) / "README.md").write_text(self.card(self), encoding="utf-8")

    def ordinary_attention(self) -> AbstractContextManager[None]:
        """The attention to generate with."""
        return nullcontext()

    def totals(self) -> dict[str, Any]:
        """What the run took, for its report. Every rank must call it."""
        return {"engine": "padded", "reference_runtime": 0.0, "peak_memory_gib": self.peak_memory_gib()}

    def peak_memory_gib(self) -> float:
        """Largest of all ranks: of the device's memory, or of the process's where it computes on a CPU."""
        if self.args.device.type == "cpu":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        else:
            peak = torch.accelerator.max_memory_allocated()
        peaks = self.accelerator.gather(torch.tensor([peak / 2**30], device=self.args.device))
        return round(float(peaks.max()), 3)


def keep_adapter_in_float32(model: nn.Module, loaded: dict[str, torch.Tensor]) -> None:
    """Undo TRL's cast of a quantized model's adapter to bfloat16, in which the optimizer's small steps are lost.

    Args:
        model: With the adapter.
        loaded: What the parameters of an adapter that goes on were, by name.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = loaded.get(name, parameter.data).to(parameter.device, torch.float32)


def set_lora_dropout(model: PeftModel) -> None:
    """Give the adapter the dropout of its own configuration, which TRL's --disable_dropout takes for the model's.

    Its copy for the reference has none.
    """
    probability = getattr(model.peft_config["default"], "lora_dropout", 0.0)
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and ".lora_dropout." in name:
            module.p = probability if name.endswith(".default") else 0.0


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


class AdapterAsLoaded(TrainerCallback):
    """Undoes what TRL has done to an adapter's numbers, before it computes anything with them."""

    def __init__(self, trainer: RunTrainer, model: nn.Module) -> None:
        self.trainer = trainer
        self.is_quantized = getattr(model, "is_loaded_in_4bit", False)
        self.loaded = {name: p.data for name, p in model.named_parameters() if self.is_quantized and p.requires_grad}

    def on_init_end(self, args: Any, state: Any, control: Any, *, model: nn.Module, **kwargs: Any) -> None:
        if self.is_quantized and not self.trainer.is_deepspeed_enabled:
            keep_adapter_in_float32(model, self.loaded)
        self.loaded = {}
        complete_reference_adapter(model)


class NoteRate(TrainerCallback):
    """Notes the learning rate that a step is taken with."""

    def __init__(self, trainer: RunTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.rate_of_step = self.trainer.scheduled_rate()


class FollowEpochs(TrainerCallback):
    """Keeps an order's epoch that of the run, also where a run goes on from a checkpoint."""

    def __init__(self, order: EpochOrder) -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.order.epoch = int(state.epoch)
