"""What can be seen to be wrong with a run's flags before any device is touched."""

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
    "truncation_mode": "nothing is truncated here; rows above --max_length are dropped and counted",
    "padding_free": "TRL's switch does nothing at present",
    "pad_token": "the tokenizer's own is used",
    "dataset_num_proc": "rows are prepared before TRL sees them, on --num_proc processes",
    "model_init_kwargs": "use --attn_implementation, --model_revision and --bf16",
    "label_smoothing_factor": "it smooths over the vocabulary; for preferences there is --label_smoothing",
    "remove_unused_columns": "the columns are prepared already",
}
"""Flags of the libraries that would be ignored here, and what to do instead."""

REFUSED_BY_PACKED = {
    "precompute_ref_log_probs": "--reference_cache does that",
    "precompute_ref_batch_size": "--per_device_eval_batch_size is for the reference too",
    "auto_find_batch_size": "--max_tokens_per_micro_batch bounds memory",
    "pad_to_multiple_of": "nothing is padded",
    "average_tokens_across_devices": "a step's mean is over the pairs or answer tokens of all devices",
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
    """Refuse what is missing, out of its range, without effect, or would overwrite something.

    Raises:
        ConfigError: saying which flag, and what to do.
    """
    for name in ("model_name_or_path", "output_dir"):
        if not getattr(config, name):
            raise ConfigError(f"--{name} is missing")
    if config.num_devices is not None and not (config.dry_run and config.num_devices >= 1):
        raise ConfigError(
            f"--num_devices {config.num_devices}: expected a number from 1 on, beside --dry_run, which plans for so "
            "many.\n  A launcher says how many devices a run has."
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
            raise ConfigError(f"--{name} is not offered{engine}: {reason}")
    for name in reporters(config.report_to):
        if name not in (*INTEGRATION_TO_CALLBACK, "all", "none"):
            raise ConfigError(unknown_name("value of --report_to", name, INTEGRATION_TO_CALLBACK))
        if name == "wandb":
            check_login()


def check_device_map(config: TrainingFields) -> None:
    """A model over several devices is for one process."""
    if config.device_map is None:
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or config.deepspeed:
        raise ConfigError(
            f"--device_map {config.device_map} spreads one process's model over its devices; several processes or "
            "DeepSpeed share the work otherwise.\n  Start it with `python main.py`, or leave --device_map out."
        )


def check_login() -> None:
    """Refuse to train for hours towards a Weights & Biases that nobody is logged in to, nor can log in to now."""
    if os.environ.get("WANDB_MODE", "online") != "online" or sys.stdin.isatty():
        return
    import wandb  # 1 s, for runs that report to it alone

    if wandb.api.api_key is None:
        raise ConfigError(
            "Weights & Biases is on, and no one is logged in.\n"
            "  Run `wandb login`, set WANDB_MODE=offline, or pass --report_to none."
        )


def reporters(report_to: Any) -> list[str]:
    return [] if report_to is None else [report_to] if isinstance(report_to, str) else list(report_to)


def check_output_dir(config: TrainingFields) -> None:
    """Refuse a folder that cannot be made, or whose content would be lost."""
    output_dir, model = Path(str(config.output_dir)).resolve(), Path(str(config.model_name_or_path)).resolve()
    check_folder("output_dir", output_dir)
    if output_dir.exists() and not os.access(output_dir, os.W_OK | os.X_OK):
        raise ConfigError(f"--output_dir {output_dir}: cannot be written to.\n  Choose another folder.")
    if output_dir == model:
        raise ConfigError("--output_dir is the folder of --model_name_or_path, which would be overwritten")
    if config.overwrite_output_dir or not output_dir.exists():
        return
    if (output_dir / RESULTS).exists():
        raise ConfigError(
            f"--output_dir {config.output_dir} holds a finished run ({RESULTS}).\n"
            + (
                "  Add --overwrite_output_dir, and raise --max_steps or --num_train_epochs: its checkpoints stay."
                if config.resume_from_checkpoint
                else "  Choose another folder, or pass --overwrite_output_dir to replace it."
            )
        )
    if weights := next((file for pattern in WEIGHTS for file in output_dir.glob(pattern)), None):
        raise ConfigError(
            f"--output_dir {config.output_dir} holds a model ({weights.name}).\n"
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
        raise ConfigError(f"--max_steps {config.max_steps}: expected 1 or more; leave it out to count epochs")


def check_resolved(config: TrainingFields) -> None:
    """Refuse what the libraries would refuse after hours of preparation, once they have read their flags.

    Raises:
        ConfigError: naming the flag.
    """
    if config.sync_ref_model and config.trains_adapter:
        raise ConfigError(
            "--sync_ref_model moves a reference model, and an adapter's reference is the model under it: leave it out."
        )
    if config.use_liger_kernel and not is_liger_kernel_available():
        raise ConfigError("--use_liger_kernel needs liger-kernel, which is not installed.\n  pip install liger-kernel")
    check_checkpoint(config)
    check_optimizer(config)
    check_schedule(config)


def check_device(config: TrainingFields) -> None:
    """Refuse what the device cannot do.

    Raises:
        ConfigError: naming the flag.
    """
    if config.activation_offloading and config.use_cpu and not config.dry_run:
        raise ConfigError("--activation_offloading moves activations from an accelerator, and this run is on a CPU.")


def check_optimizer(config: TrainingFields) -> None:
    try:
        Trainer.get_optimizer_cls_and_kwargs(config)
    except (ImportError, NotImplementedError, ValueError) as error:
        if "pass a" not in str(error):  # GaLore, APOLLO and LOMO ask for the model next
            raise ConfigError(f"--optim {config.optim.value}: {error}") from error


def check_schedule(config: TrainingFields) -> None:
    unused = torch.optim.SGD([torch.zeros(1)], lr=config.learning_rate or 0.0)
    name, options = config.lr_scheduler_type, config.lr_scheduler_kwargs
    try:
        get_scheduler(name, unused, num_warmup_steps=0, num_training_steps=1, scheduler_specific_kwargs=options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"--lr_scheduler_type {name.value}: {error}\n"
            f"  Found --lr_scheduler_kwargs {options}; expected such as '{{\"min_lr_rate\": 0.1}}'."
        ) from error
