"""What both engines' trainers share: the order of rows, the logged learning rate, and what is saved."""

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
from transformers import PreTrainedModel, Trainer, TrainerCallback

from dpo.engine.order import EpochOrder
from dpo.training.distributed import is_fsdp, shard_between_cpus
from dpo.training.lifecycle.soundness import EndOnNan
from dpo.training.policy.lora import REFERENCE


class RunTrainer(Trainer):
    """transformers.Trainer with the behavior that all runs share. Also a mixin in front of TRL's trainers.

    Overridden:
        create_accelerator_and_postprocess: turns on FSDP between CPU ranks, which accelerate leaves off.
        get_batch_samples: gives no batch after the last step, which a run resumed from there would train on.
        log: logs the rate that a step was taken with. A scheduler that DeepSpeed steps is one step ahead.
        _save: what a run leaves on disk.
        create_model_card: the run's own card.

    Args:
        card: Gives the text of the model card. Without it no card is written.
    """

    def __init__(self, *args: Any, card: Callable[["RunTrainer"], str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.card = card
        self.order = EpochOrder.of(self.args, len(self.train_dataset))
        self.rate = NoteRate()
        for callback in (FollowEpochs(self.order), self.rate, EndOnNan(skips=self.skips_bad_steps)):
            self.add_callback(callback)

    @property
    def skips_bad_steps(self) -> bool:
        """Whether a step with a NaN or infinite gradient is skipped: by DeepSpeed, and in float16."""
        return bool(self.is_deepspeed_enabled or self.args.fp16)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if is_fsdp(self.args) and self.accelerator.distributed_type is DistributedType.MULTI_CPU:
            shard_between_cpus(self.accelerator, self.args)
            self.is_fsdp_enabled = True

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[dict[str, Any]], Any]:
        if 0 < self.state.max_steps <= self.state.global_step:
            return [], None
        samples: tuple[list[dict[str, Any]], Any] = super().get_batch_samples(*args, **kwargs)
        return samples

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "learning_rate" in logs and self.rate.of_step is not None:
            logs["learning_rate"] = self.rate.of_step
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        model = self.accelerator.unwrap_model(self.model)
        if state_dict and isinstance(model, PreTrainedModel):
            # DeepSpeed gives copies, so that save_pretrained cannot see which weights are tied and would write both.
            state_dict = {name: t for name, t in state_dict.items() if name not in model.all_tied_weights_keys}
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        for file in folder.glob("*.safetensors"):
            file.chmod(0o666 & ~current_umask())  # safetensors makes them the owner's alone
        if isinstance(model, PeftModel):
            # An adapter does not contain how generation ends. Its reference copy is not part of the result.
            model.get_base_model().generation_config.save_pretrained(folder)
            shutil.rmtree(folder / REFERENCE, ignore_errors=True)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        if self.card is not None and self.is_world_process_zero():
            (Path(self.args.output_dir) / "README.md").write_text(self.card(self), encoding="utf-8")

    def ordinary_attention(self) -> AbstractContextManager[None]:
        """A context in which the model generates."""
        return nullcontext()

    def totals(self) -> dict[str, Any]:
        """Figures of the run for its report. Every rank must call this."""
        return {"engine": "padded", "reference_runtime": 0.0, "peak_memory_gib": self.peak_memory_gib()}

    def peak_memory_gib(self) -> float:
        """Largest peak memory of all ranks: of the device, or of the process where it computes on a CPU."""
        if self.args.device.type == "cpu":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        else:
            peak = torch.accelerator.max_memory_allocated()
        peaks = self.accelerator.gather(torch.tensor([peak / 2**30], device=self.args.device))
        return round(float(peaks.max()), 3)


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


class NoteRate(TrainerCallback):
    """Notes the learning rate at the start of each step."""

    def __init__(self) -> None:
        self.of_step: float | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, *, optimizer: Any, **kwargs: Any) -> None:
        self.of_step = float(optimizer.param_groups[0]["lr"])


class FollowEpochs(TrainerCallback):
    """Sets the epoch of the order at the start of each epoch, also where a run resumes."""

    def __init__(self, order: EpochOrder) -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.order.epoch = int(state.epoch)
