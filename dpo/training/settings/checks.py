"""Checks of a run's flags that need no device."""

__all__ = ["REFUSED", "check_config", "check_device", "check_resolved"]

import dataclasses
import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, get_scheduler
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.utils import is_liger_kernel_available
from trl import DPOConfig

from dpo.errors import ConfigError, unknown_name
from dpo.folders import RESULTS, WEIGHTS, check_folder
from dpo.training.settings.fields import TrainingFields
from dpo.training.settings.objective_checks import check_objective
from dpo.training.settings.resuming import check_checkpoint, find_checkpoint

REFUSED = {
    "truncation_mode": "nothing is truncated; rows longer than --max_length are dropped and counted",
    "padding_free": "this TRL flag currently does nothing",
    "pad_token": "the padding token of the tokenizer is used",
    "dataset_num_proc": "rows are prepared before TRL sees them; set the number of processes with --num_proc",
    "model_init_kwargs": "use --attn_implementation, --model_revision and --bf16 instead",
    "label_smoothing_factor": "it smooths over the vocabulary; use --label_smoothing to smooth preference labels",
    "remove_unused_columns": "the prepared rows have exactly the columns that training needs",
}
"""Library flags that would have no effect, and what to use instead."""

REFUSED_BY_PACKED = {
    "precompute_ref_log_probs": "--reference_cache does the same",
    "precompute_ref_batch_size": "--per_device_eval_batch_size also sets the batch size of the reference model",
    "auto_find_batch_size": "use --max_tokens_per_micro_batch to bound memory",
    "pad_to_multiple_of": "this engine does not pad",
    "average_tokens_across_devices": "the loss is always averaged over the pairs or answer tokens of all devices",
}

ABOVE_ZERO = (
    "beta",
    "discopop_tau",
    "num_train_epochs",
    "eval_steps",
    "logging_steps",
    "save_steps",
    "per_device_eval_batch_size",
)
NOT_BELOW_ZERO = ("learning_rate", "sample_prompts", "warmup_steps", "max_grad_norm", "weight_decay")


def check_config(config: TrainingFields) -> None:
    """Check all flags that can be checked before the libraries read them.

    Raises:
        ConfigError: if a flag is missing, is out of range, has no effect, or would overwrite files.
    """
    for name in ("model_name_or_path", "output_dir"):
        if not getattr(config, name):
            raise ConfigError(f"--{name} is missing")
    if config.num_devices is not None and not (config.dry_run and config.num_devices >= 1):
        raise ConfigError(
            f"--num_devices {config.num_devices}: expected at least 1, together with --dry_run.\n"
            "  A real run uses the devices that its launcher starts."
        )
    check_output_dir(config)
    find_checkpoint(config)
    check_ranges(config)
    check_device_map(config)
    check_objective(config)
    defaults = {f.name: f.default for f in dataclasses.fields(DPOConfig)}
    refused = REFUSED if config.engine == "padded" else REFUSED | REFUSED_BY_PACKED
    for name, reason in refused.items():
        if getattr(config, name) != defaults[name]:
            engine = " by --engine packed" if name in REFUSED_BY_PACKED else ""
            raise ConfigError(f"--{name} is not supported{engine}: {reason}")
    for name in reporters(config.report_to):
        if name not in (*INTEGRATION_TO_CALLBACK, "all", "none"):
            raise ConfigError(unknown_name("value of --report_to", name, INTEGRATION_TO_CALLBACK))
        if name == "wandb":
            check_login()


def check_device_map(config: TrainingFields) -> None:
    """Check that --device_map is used by a single process without DeepSpeed."""
    if config.device_map is None:
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or config.deepspeed:
        raise ConfigError(
            f"--device_map {config.device_map} spreads one process's model over its devices, but this run uses several "
            "processes or DeepSpeed.\n"
            "  Start the run with `python main.py` and without --deepspeed, or leave --device_map out."
        )


def check_login() -> None:
    """Check that Weights & Biases is logged in, unless it is offline or the user can log in at the terminal."""
    if os.environ.get("WANDB_MODE", "online") != "online" or sys.stdin.isatty():
        return
    import wandb  # takes 1 s, so it is imported only here

    if wandb.api.api_key is None:
        raise ConfigError(
            "Weights & Biases is on (--report_to wandb or WANDB_PROJECT), but you are not logged in.\n"
            "  Run `wandb login`, set WANDB_MODE=offline, or pass --report_to none."
        )


def reporters(report_to: Any) -> list[str]:
    return [] if report_to is None else [report_to] if isinstance(report_to, str) else list(report_to)


def check_output_dir(config: TrainingFields) -> None:
    """Check that output_dir can be created, and that nothing in it would be lost."""
    output_dir, model = Path(str(config.output_dir)).resolve(), Path(str(config.model_name_or_path)).resolve()
    check_folder("output_dir", output_dir)
    if output_dir.exists() and not os.access(output_dir, os.W_OK | os.X_OK):
        raise ConfigError(f"--output_dir {output_dir}: the folder is not writable.\n  Choose another folder.")
    if output_dir == model:
        raise ConfigError(
            f"--output_dir {config.output_dir} is the folder of --model_name_or_path, which would be overwritten.\n"
            "  Choose another folder."
        )
    if config.overwrite_output_dir or not output_dir.exists():
        return
    if (output_dir / RESULTS).exists():
        raise ConfigError(
            f"--output_dir {config.output_dir} contains a finished run ({RESULTS}).\n"
            + (
                "  To train it further, add --overwrite_output_dir and raise --max_steps or --num_train_epochs. "
                "Its checkpoints are kept."
                if config.resume_from_checkpoint
                else "  Choose another folder, or pass --overwrite_output_dir to replace it."
            )
        )
    if weights := next((file for pattern in WEIGHTS for file in output_dir.glob(pattern)), None):
        raise ConfigError(
            f"--output_dir {config.output_dir} contains a model ({weights.name}).\n"
            "  Choose another folder, or pass --overwrite_output_dir to replace it."
        )


def check_ranges(config: TrainingFields) -> None:
    for name in ABOVE_ZERO:
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"--{name} {value}: expected a number above 0")
    for name in NOT_BELOW_ZERO:
        value = getattr(config, name)
        clips_nothing = name == "max_grad_norm" and value == math.inf
        if value is not None and not (0 <= value < math.inf or clips_nothing):
            raise ConfigError(f"--{name} {value}: expected 0 or more")
    if config.max_steps == 0 or config.max_steps < -1:
        raise ConfigError(
            f"--max_steps {config.max_steps}: expected 1 or more.\n  Leave it out to train for --num_train_epochs."
        )


def check_resolved(config: TrainingFields) -> None:
    """Check flags after TRL and transformers have read them: errors that would otherwise appear after preparation.

    Raises:
        ConfigError: if a package is missing, or a flag does not fit the model, the checkpoint, the optimizer or the
            schedule.
    """
    if config.sync_ref_model and config.trains_adapter:
        raise ConfigError(
            "--sync_ref_model moves a reference model, but a run that trains an adapter has no separate one.\n"
            "  Leave --sync_ref_model out."
        )
    if config.use_liger_kernel and not is_liger_kernel_available():
        raise ConfigError(
            "--use_liger_kernel needs liger-kernel, which is not installed.\n  Run: pip install liger-kernel"
        )
    check_checkpoint(config)
    check_optimizer(config)
    check_schedule(config)


def check_device(config: TrainingFields) -> None:
    """Check flags that not every device supports.

    Raises:
        ConfigError: if the run is on a CPU, and a flag needs an accelerator.
    """
    if config.activation_offloading and config.use_cpu and not config.dry_run:
        raise ConfigError(
            "--activation_offloading moves activations away from an accelerator, but this run is on a CPU.\n"
            "  Leave --activation_offloading out."
        )


def check_optimizer(config: TrainingFields) -> None:
    try:
        Trainer.get_optimizer_cls_and_kwargs(config)
    except (ImportError, NotImplementedError, ValueError) as error:
        if "pass a" not in str(error):  # GaLore, APOLLO and LOMO get as far as needing the model
            raise ConfigError(f"--optim {config.optim.value}: {error}") from error


def check_schedule(config: TrainingFields) -> None:
    unused = torch.optim.SGD([torch.zeros(1)], lr=config.learning_rate or 0.0)
    name, options = config.lr_scheduler_type, config.lr_scheduler_kwargs
    try:
        get_scheduler(name, unused, num_warmup_steps=0, num_training_steps=1, scheduler_specific_kwargs=options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"--lr_scheduler_type {name.value}: {error}\n"
            f"  Found --lr_scheduler_kwargs {options}; expected JSON, such as '{{\"min_lr_rate\": 0.1}}'."
        ) from error
