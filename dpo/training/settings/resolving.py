"""Turns the flags of a run into its settings: checks them in order and derives the missing values."""

__all__ = ["TrainingConfig"]

import os
from pathlib import Path

import torch

from dpo.errors import ConfigError
from dpo.models.attention import resolve_attention
from dpo.models.device import computes_bf16
from dpo.models.locating import LocatedModel, locate
from dpo.training.lifecycle.same_run import check_same_run
from dpo.training.settings.batches import check_sizes, derive_batches
from dpo.training.settings.checks import check_config, check_device, check_resolved
from dpo.training.settings.deepspeed_config import check_mismatches, load_deepspeed_config
from dpo.training.settings.fields import TrainingFields
from dpo.training.settings.lora_checks import check_lora
from dpo.training.settings.objective import parse_losses
from dpo.training.settings.objective_checks import check_loss_flags
from dpo.training.settings.resuming import flag_facts

LEARNING_RATES = {"dpo": 1e-6, "sft": 2e-5}
"""Default learning rates by stage, for training the whole model."""
ADAPTER_LEARNING_RATES = {"dpo": 1e-5, "sft": 2e-4}
"""Ten times LEARNING_RATES, written out because 10 * 1e-6 prints as 9.999999999999999e-06."""


class TrainingConfig(TrainingFields):
    """The flags of a run, checked, with every value filled in that follows from other flags or from the devices."""

    def __post_init__(self) -> None:
        self.check_flags()
        self.set_up()

    def check_flags(self) -> None:
        """Check everything that does not depend on the devices, and read the losses and DeepSpeed's JSON.

        Raises:
            ConfigError: if a flag is wrong, contradicts another, or would overwrite files.
        """
        for name in ("output_dir", "model_name_or_path"):
            # ~ comes from a YAML file, since a shell expands it. Keep the leading "./": it marks a local folder, not
            # a Hub id, and Path would drop it.
            if value := getattr(self, name):
                setattr(self, name, str(Path(value).expanduser()) if value.startswith("~") else value)
        if self.report_to is None:
            self.report_to = "wandb" if os.environ.get("WANDB_PROJECT") else "none"
        self.eval_strategy = self.eval_strategy or "no"
        self.eval_on_start = bool(self.eval_on_start)
        self.set_losses()
        check_config(self)
        self.located = self.locate_model()
        if self.learning_rate is None:
            self.learning_rate = (ADAPTER_LEARNING_RATES if self.trains_adapter else LEARNING_RATES).get(self.stage, 0)
        check_sizes(self.global_batch_size, self.per_device_train_batch_size, self.gradient_accumulation_steps)
        if isinstance(self.deepspeed, str):
            self.deepspeed_file = self.deepspeed
            self.deepspeed = load_deepspeed_config(self.deepspeed)
        check_lora(self)

    def set_up(self) -> None:
        """Start the devices and fill in the values that depend on them.

        Raises:
            ConfigError: if the devices do not support a flag.
        """
        self.accumulation_asked = self.gradient_accumulation_steps
        world_size = self.num_devices or int(os.environ.get("WORLD_SIZE", "1"))
        self.global_batch_size, self.per_device_train_batch_size, self.gradient_accumulation_steps = derive_batches(
            global_batch_size=self.global_batch_size,
            per_device=self.per_device_train_batch_size,
            accumulation=self.gradient_accumulation_steps,
            world_size=world_size,
        )
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.bf16 is None:
            self.bf16 = not self.use_cpu and not self.fp16 and computes_bf16()
        self.set_up_libraries()
        check_device(self)
        check_mismatches(self, self.deepspeed_file)
        check_same_run(self.resume_from_checkpoint, flag_facts(self))
        # Resolved here, so that an unavailable attention is an error before the data is prepared.
        self.attention = resolve_attention(self.attn_implementation, half_precision=bool(self.bf16 or self.fp16))

    def set_up_libraries(self) -> None:
        """Let TRL and transformers read the flags. They also select the device."""
        try:
            super().__post_init__()
        except (ImportError, ValueError) as error:
            raise ConfigError(str(error)) from error
        check_resolved(self)

    def locate_model(self) -> LocatedModel:
        """Find the model that --model_name_or_path names.

        Raises:
            ModelError, TokenizerError: if there is no such model.
        """
        return locate(str(self.model_name_or_path), revision=self.model_revision)

    def set_losses(self) -> None:
        """Read the losses from --loss or from TRL's two flags, and set all three to match."""
        check_loss_flags(self)
        terms = self.loss or self.loss_type or ["sigmoid"]
        terms = [terms] if isinstance(terms, str) else terms
        names, weights = parse_losses(terms, self.loss_weights or None)
        weighted = zip(names, weights, strict=True)
        self.loss = [name if weight == 1 else f"{name}:{weight!r}" for name, weight in weighted]
        self.loss_type, self.loss_weights = names, None if set(weights) == {1.0} else weights

    def set_accumulation(self, num_micro_batches: int) -> None:
        """Set the number of micro-batches per step, for the packed engine, which plans their pairs itself."""
        if num_micro_batches == self.gradient_accumulation_steps:
            return
        self.gradient_accumulation_steps = num_micro_batches
        if self.deepspeed:
            # DeepSpeed checks that the batch size is the product of the other two and of the number of devices. It uses
            # them only for this check and to log the throughput.
            self.hf_deepspeed_config.config |= {
                "gradient_accumulation_steps": num_micro_batches,
                "train_micro_batch_size_per_gpu": 1,
                "train_batch_size": num_micro_batches * self.world_size,
            }
