"""The padded engine: TRL's trainers on our token ids. The packed engine is tested against it."""

__all__ = ["PreferenceTrainer", "TrlTrainer"]

from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import TrainerCallback
from trl import DPOTrainer

from dpo.training.policy.lora import REFERENCE, complete_reference_adapter
from dpo.training.trainers.base import RunTrainer


class TrlTrainer(RunTrainer):
    """A mixin in front of TRL's trainers.

    Overridden, beside what RunTrainer overrides: `_get_train_sampler`, so that both engines take the same rows in the
    same step.

    Args:
        model: The model, or one with an adapter whose training continues.
    """

    def __init__(self, *args: Any, model: nn.Module, **kwargs: Any) -> None:
        super().__init__(*args, model=model, callbacks=[AdapterAsLoaded(self, model)], **kwargs)
        if isinstance(self.model, PeftModel):
            set_lora_dropout(self.model)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.args.train_sampling_strategy in ("random", "sequential"):
            return self.order
        return super()._get_train_sampler(train_dataset)


class PreferenceTrainer(TrlTrainer, DPOTrainer):
    """trl.DPOTrainer on pairs that are already tokenized, split and filtered.

    Overridden, beside what TrlTrainer overrides: `_prepare_dataset`, which would render and tokenize again.
    """

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"])


class AdapterAsLoaded(TrainerCallback):
    """Undoes what TRL's constructors do to an adapter's numbers, before anything is computed with them."""

    def __init__(self, trainer: RunTrainer, model: nn.Module) -> None:
        self.trainer = trainer
        self.is_quantized = getattr(model, "is_loaded_in_4bit", False)
        self.loaded = {name: p.data for name, p in model.named_parameters() if self.is_quantized and p.requires_grad}

    def on_init_end(self, args: Any, state: Any, control: Any, *, model: nn.Module, **kwargs: Any) -> None:
        if self.is_quantized and not self.trainer.is_deepspeed_enabled:
            keep_adapter_in_float32(model, self.loaded)
        self.loaded = {}
        complete_reference_adapter(model)


def keep_adapter_in_float32(model: nn.Module, loaded: dict[str, torch.Tensor]) -> None:
    """Undo TRL's cast of a quantized model's adapter to bfloat16, in which the optimizer's small steps are lost.

    Args:
        model: With the adapter.
        loaded: Parameters of an adapter whose training continues, by name, as they were loaded.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = loaded.get(name, parameter.data).to(parameter.device, torch.float32)


def set_lora_dropout(model: PeftModel) -> None:
    """Restore the adapter's own dropout, which TRL's --disable_dropout turns off. The reference copy has none."""
    probability = getattr(model.peft_config["default"], "lora_dropout", 0.0)
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and ".lora_dropout." in name:
            module.p = 0.0 if name.endswith(f".{REFERENCE}") else probability
