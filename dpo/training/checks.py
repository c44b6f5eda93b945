"""What can be seen to be wrong with a run's flags before any device is touched."""

__all__ = ["LOSS_OPTIONS", "REFUSED", "RESULTS", "WEIGHTS", "check_config", "check_padded_loss"]

import dataclasses
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_utils import get_last_checkpoint
from trl import DPOConfig

from dpo.errors import ConfigError, unknown_name
from dpo.folders import RESULTS, check_folder
from dpo.training.engine import why_padded_by_flags
from dpo.training.losses import DIVERGENCES, LOSSES, OF_DIVERGENCE
from dpo.training.objective import Objective

if TYPE_CHECKING:
    from dpo.training.config import TrainingConfig

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
"""What a saved model's weights are called."""

REFUSED = {
    "truncation_mode": "nothing is truncated here; rows above --max_length are dropped and counted",
    "padding_free": "TRL's switch does nothing at present",
    "pad_token": "the tokenizer's own is used",
    "dataset_num_proc": "rows are prepared before TRL sees them, on --num_proc processes",
    "model_init_kwargs": "use --attn_implementation, --model_revision and --bf16",
    "label_smoothing_factor": "it belongs to cross-entropy, which DPO does not compute",
    "remove_unused_columns": "the columns are prepared already",
}
"""Flags of the libraries that would be ignored here, and what to do instead."""

REFUSED_BY_PACKED = {
    "precompute_ref_log_probs": "--reference_cache does that",
    "precompute_ref_batch_size": "--per_device_eval_batch_size is for the reference too",
    "auto_find_batch_size": "--max_tokens_per_micro_batch bounds memory",
    "pad_to_multiple_of": "nothing is padded",
}

LOSS_OPTIONS = sorted(frozenset().union(*(loss.reads for loss in LOSSES.values())))
"""Options that only some losses read. The others would ignore them without a word."""

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


def check_config(config: "TrainingConfig") -> None:
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
    check_resuming(config)
    check_ranges(config)
    check_loss(config)
    check_reference_cache(config)
    defaults = {f.name: f.default for f in dataclasses.fields(DPOConfig)}
    refused = REFUSED if config.engine == "padded" else REFUSED | REFUSED_BY_PACKED
    for name, reason in refused.items():
        if getattr(config, name) != defaults[name]:
            engine = " by --engine packed" if name in REFUSED_BY_PACKED else ""
            raise ConfigError(f"--{name} is not offered{engine}: {reason}")
    if config.engine == "padded" and config.max_tokens_per_micro_batch is not None:
        raise ConfigError("--max_tokens_per_micro_batch is not read by --engine padded")
    for name in reporters(config.report_to):
        if name not in (*INTEGRATION_TO_CALLBACK, "all", "none"):
            raise ConfigError(unknown_name("value of --report_to", name, INTEGRATION_TO_CALLBACK))
        if name == "wandb":
            check_login()


def check_reference_cache(config: "TrainingConfig") -> None:
    if config.engine == "padded":
        return
    if Objective.of(config).needs_reference:
        if config.reference_folder is not None:
            check_folder("reference_cache", config.reference_folder)
    elif config.reference_cache not in ("auto", "none", "false"):
        losses = " and ".join(config.loss_type)
        raise ConfigError(f"--reference_cache {config.reference_cache}: {losses} use no reference: leave it out.")


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


def check_output_dir(config: "TrainingConfig") -> None:
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
            "  Choose another folder, or pass --overwrite_output_dir to replace it."
        )
    if weights := next((file for pattern in WEIGHTS for file in output_dir.glob(pattern)), None):
        raise ConfigError(
            f"--output_dir {config.output_dir} holds a model ({weights.name}).\n"
            "  Choose another folder, or pass --overwrite_output_dir to replace it."
        )


def check_resuming(config: "TrainingConfig") -> None:
    """Find the checkpoint that 'latest' means, and refuse a folder that is none."""
    wanted = config.resume_from_checkpoint
    if not wanted:
        return
    if str(wanted).lower() in ("true", "latest"):
        output_dir = str(config.output_dir)
        config.resume_from_checkpoint = get_last_checkpoint(output_dir) if Path(output_dir).is_dir() else None
        if config.resume_from_checkpoint is None:
            raise ConfigError(f"--resume_from_checkpoint: {output_dir} holds no checkpoint-* folder")
    elif not Path(wanted).is_dir():
        raise ConfigError(f"--resume_from_checkpoint {wanted}: there is no such folder")
    elif not (Path(wanted) / "trainer_state.json").exists() or (Path(wanted) / RESULTS).exists():
        raise ConfigError(
            f"--resume_from_checkpoint {wanted} is no checkpoint.\n  Expected a checkpoint-* folder of an output_dir."
        )


def check_ranges(config: "TrainingConfig") -> None:
    for name in ABOVE_ZERO:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ConfigError(f"--{name} {value}: expected a number above 0")
    for name in NOT_BELOW_ZERO:
        if not getattr(config, name) >= 0:
            raise ConfigError(f"--{name} {getattr(config, name)}: expected 0 or more")
    if config.max_steps == 0 or config.max_steps < -1:
        raise ConfigError(f"--max_steps {config.max_steps}: expected 1 or more; leave it out to count epochs")


def check_loss(config: "TrainingConfig") -> None:
    """Refuse losses that are not there, options that the chosen ones do not read, and values out of range."""
    reads = {name: loss.reads for name, loss in LOSSES.items()}
    if "dpo" in config.loss_type:
        raise ConfigError("unknown loss 'dpo': DPO's is called sigmoid, and is the default")
    for kind, given, known in (
        ("loss", config.loss_type, reads),
        ("divergence", [config.f_divergence_type], DIVERGENCES),
    ):
        for name in given:
            if name not in known:
                raise ConfigError(unknown_name(kind, name, known))
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    for option in LOSS_OPTIONS:
        if getattr(config, option) == defaults[option]:
            continue
        readers = [name for name in reads if option in reads[name]]
        # A divergence is one for the whole objective; sft has no log-ratio to measure by it.
        idle = set(config.loss_type) - set(readers) - {"sft"} if option in OF_DIVERGENCE else set()
        if idle or not set(readers) & set(config.loss_type):
            raise ConfigError(
                f"--{option} is not read by --loss {' '.join(sorted(idle) or config.loss_type)}.\n"
                f"  It belongs to: {', '.join(readers)}."
            )
    if not 0 <= config.label_smoothing < 0.5:
        raise ConfigError(f"--label_smoothing {config.label_smoothing}: expected 0 or more, and less than 0.5")
    if "exo_pair" in config.loss_type and config.label_smoothing == 0:
        raise ConfigError("--loss exo_pair needs --label_smoothing above 0; its paper takes 1e-3")
    if config.f_alpha_divergence_coef != defaults["f_alpha_divergence_coef"] and (
        config.f_divergence_type != "alpha_divergence"
    ):
        raise ConfigError("--f_alpha_divergence_coef is read by --f_divergence_type alpha_divergence alone")
    for option in ("simpo_gamma", "f_alpha_divergence_coef"):
        if not math.isfinite(getattr(config, option)):
            raise ConfigError(f"--{option} {getattr(config, option)}: expected a number")
    losses = {name: LOSSES[name] for name in config.loss_type}
    if config.reference_free and not any(loss.needs_reference for loss in losses.values()):
        raise ConfigError(
            f"--reference_free: --loss {' '.join(losses)} uses no reference anyway: leave --reference_free out."
        )
    if config.reference_free and config.f_divergence_type != "reverse_kl":
        raise ConfigError(
            f"--f_divergence_type {config.f_divergence_type} is one from a reference: leave out it or --reference_free."
        )
    if config.ld_alpha is not None:
        if not 0 <= config.ld_alpha <= 1:
            raise ConfigError(f"--ld_alpha {config.ld_alpha}: expected 0 to 1")
        if other := [name for name, loss in losses.items() if not loss.needs_reference]:
            raise ConfigError(f"--ld_alpha weighs tokens of log-ratios, which --loss {' '.join(other)} does not read.")
    if config.use_weighting and (other := [name for name, loss in losses.items() if loss.compares_pairs]):
        raise ConfigError(f"--use_weighting weighs pairs, which --loss {' '.join(other)} does not keep apart.")
    reason = why_padded_by_flags(config)
    if config.engine == "padded" or reason:
        check_padded_loss(config, reason)


def check_padded_loss(config: "TrainingConfig", reason: str | None) -> None:
    """Refuse what TRL's loss would compute otherwise than asked, or not at all.

    Args:
        config: The run's flags.
        reason: Why the run is padded, where nobody asked for it.

    Raises:
        ConfigError: naming the flag.
    """
    asked = [f"--loss {name}" for name in config.loss_type if not LOSSES[name].in_trl]
    if config.label_smoothing and "sigmoid" in config.loss_type:
        asked.append("--label_smoothing with --loss sigmoid")
    if config.logp_reduction == "sum":
        asked.append("--logp_reduction sum")
    if config.reference_free:
        asked.append("--reference_free")
    if asked:
        why = f", and this run is padded, since {reason}" if reason and config.engine == "packed" else ""
        way_out = "leave --engine out" if config.engine == "padded" else "leave it out"
        raise ConfigError(
            f"{asked[0]} is computed by --engine packed alone{why}.\n"
            f"  --engine padded computes TRL's loss, which does not have it: {way_out}."
        )
