"""Checks of the flags that define the objective: losses, their options, the reference."""

__all__ = ["LOSS_OPTIONS", "check_loss_flags", "check_objective", "check_padded"]

import dataclasses
import math

from dpo.errors import ConfigError, unknown_name
from dpo.folders import check_folder
from dpo.objective.losses import DIVERGENCES, LOSSES, OF_DIVERGENCE
from dpo.training.settings.engine import why_padded_by_flags
from dpo.training.settings.fields import TrainingFields
from dpo.training.settings.objective import objective_of

LOSS_OPTIONS = sorted(frozenset().union(*(loss.reads for loss in LOSSES.values())))
"""Options that only some losses read. The other losses would silently ignore them."""

OF_PAIRS = (
    *("beta", "reference_free", "ld_alpha", "use_weighting", "weight_by_score", "sync_ref_model"),
    *("ref_model_sync_steps", "ref_model_mixup_alpha", "precompute_ref_log_probs", "precompute_ref_batch_size"),
)
"""Flags that --stage sft does not read, in addition to LOSS_OPTIONS."""

NO_FOLDER = ("auto", "none", "false")
"""Values of --reference_cache that are not a folder."""


def check_loss_flags(config: TrainingFields) -> None:
    """Check which of the flags that name losses were given. Call it before the default loss is filled in.

    Raises:
        ConfigError: if a loss was given for --stage sft, or --loss together with --loss_type or --loss_weights.
    """
    given = [name for name in ("loss", "loss_type", "loss_weights") if getattr(config, name)]
    if given and config.stage == "sft":
        raise ConfigError(
            f"--{given[0]} is for pairs, and --stage sft has only one loss: the negative log-probability of the "
            f"answers, averaged over their tokens.\n  Leave --{given[0]} out. To add an SFT loss to DPO, pass --loss "
            "sigmoid:1.0 sft:0.2 without --stage sft."
        )
    if given[:1] == ["loss"] and given[1:]:
        raise ConfigError("--loss replaces --loss_type and --loss_weights: pass one or the other.")


def check_objective(config: TrainingFields) -> None:
    """Check the losses, their options, and the flags of the reference and of the engine.

    Raises:
        ConfigError: if a flag is out of range, contradicts another, or would have no effect.
    """
    if config.stage == "sft":
        check_sft(config)
    else:
        check_loss(config)
    check_reference_cache(config)
    reason = why_padded_by_flags(config)
    if config.engine == "padded" or reason:
        check_padded(config, reason)


def check_sft(config: TrainingFields) -> None:
    """Check that no flag needs pairs."""
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    for name in (*LOSS_OPTIONS, *OF_PAIRS):
        if getattr(config, name) != defaults[name]:
            raise ConfigError(
                f"--{name} is for pairs, and --stage sft trains on single answers.\n  Leave --{name} out."
            )


def check_reference_cache(config: TrainingFields) -> None:
    if objective_of(config).needs_reference:
        if config.engine == "packed" and config.reference_folder is not None:
            check_folder("reference_cache", config.reference_folder)
    elif config.reference_cache not in NO_FOLDER:
        objective = "answers alone (--stage sft)" if config.stage == "sft" else f"--loss {' '.join(config.loss_type)}"
        raise ConfigError(
            f"--reference_cache {config.reference_cache}: no reference is read with {objective}.\n"
            "  Leave --reference_cache out."
        )


def check_loss(config: TrainingFields) -> None:
    """Check that the losses exist, that they read the given options, and that values are in range."""
    reads = {name: loss.reads for name, loss in LOSSES.items()}
    if "dpo" in config.loss_type:
        raise ConfigError("unknown loss 'dpo': the DPO loss is called sigmoid, and it is the default.")
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
        # All losses must read the divergence, except sft, which has no log-ratio.
        ignoring = set(config.loss_type) - set(readers) - {"sft"} if option in OF_DIVERGENCE else set()
        if ignoring or not set(readers) & set(config.loss_type):
            raise ConfigError(
                f"--{option} is not read by --loss {' '.join(sorted(ignoring) or config.loss_type)}.\n"
                f"  Losses that read it: {', '.join(readers)}."
            )
    if not 0 <= config.label_smoothing < 0.5:
        raise ConfigError(f"--label_smoothing {config.label_smoothing}: expected 0 or more, and less than 0.5")
    if "exo_pair" in config.loss_type and config.label_smoothing == 0:
        raise ConfigError("--loss exo_pair needs --label_smoothing above 0. Its paper uses 1e-3.")
    if config.f_alpha_divergence_coef != defaults["f_alpha_divergence_coef"] and (
        config.f_divergence_type != "alpha_divergence"
    ):
        raise ConfigError(
            "--f_alpha_divergence_coef is only read with --f_divergence_type alpha_divergence: pass both or neither."
        )
    for option in ("simpo_gamma", "f_alpha_divergence_coef"):
        if not math.isfinite(getattr(config, option)):
            raise ConfigError(f"--{option} {getattr(config, option)}: expected a finite number")
    if config.loss_type == ["sft"] and config.beta != defaults["beta"]:
        raise ConfigError(f"--beta {config.beta} is not read by --loss sft.\n  Leave --beta out.")
    if config.train_sampling_strategy not in ("random", "sequential"):
        raise ConfigError(
            f"--train_sampling_strategy {config.train_sampling_strategy} needs the length of a row, and a pair has two "
            "answers.\n  Pass random or sequential."
        )
    for option in ("ref_model_sync_steps", "ref_model_mixup_alpha"):
        if getattr(config, option) != defaults[option] and not config.sync_ref_model:
            raise ConfigError(f"--{option} is only read with --sync_ref_model: pass both or neither.")
    losses = {name: LOSSES[name] for name in config.loss_type}
    if config.reference_free and not any(loss.needs_reference for loss in losses.values()):
        raise ConfigError(
            f"--reference_free: --loss {' '.join(losses)} uses no reference anyway.\n  Leave --reference_free out."
        )
    if config.reference_free and config.f_divergence_type != "reverse_kl":
        raise ConfigError(
            f"--f_divergence_type {config.f_divergence_type} is a divergence from a reference, and --reference_free "
            "trains without one.\n  Leave one of the two out."
        )
    if config.ld_alpha is not None:
        if not 0 <= config.ld_alpha <= 1:
            raise ConfigError(f"--ld_alpha {config.ld_alpha}: expected a number from 0 to 1")
        if other := [name for name, loss in losses.items() if not loss.needs_reference]:
            raise ConfigError(
                f"--ld_alpha weighs tokens of log-ratios, which --loss {' '.join(other)} does not read.\n"
                "  Leave --ld_alpha out."
            )
    for option in ("use_weighting", "weight_by_score"):
        if getattr(config, option) and (other := [name for name, loss in losses.items() if loss.compares_pairs]):
            raise ConfigError(
                f"--{option} weighs pairs, which --loss {' '.join(other)} does not keep apart: it sorts the values of "
                f"all pairs in a micro-batch.\n  Leave --{option} out."
            )


def check_padded(config: TrainingFields, reason: str | None) -> None:
    """Check that the padded engine supports every flag.

    Args:
        config: The run's flags.
        reason: Why the run uses the padded engine although the user did not choose it, or None.

    Raises:
        ConfigError: if only the packed engine reads a flag or computes a loss.
    """
    unsupported = [f"--loss {name}" for name in config.loss_type if not LOSSES[name].in_trl]
    if config.label_smoothing and "sigmoid" in config.loss_type:
        unsupported.append("--label_smoothing with --loss sigmoid")
    if config.logp_reduction == "sum":
        unsupported.append("--logp_reduction sum")
    unsupported += [f"--{name}" for name in ("reference_free", "weight_by_score") if getattr(config, name)]
    why = f", and this run is padded because {reason}" if reason and config.engine == "packed" else ""
    remedy = "Leave --engine out" if config.engine == "padded" else "Leave it out"
    if unsupported:
        raise ConfigError(
            f"{unsupported[0]} is computed by --engine packed alone{why}.\n"
            f"  --engine padded computes TRL's loss, which does not support it. {remedy}."
        )
    unread = ["--max_tokens_per_micro_batch"] if config.max_tokens_per_micro_batch is not None else []
    if config.reference_cache not in NO_FOLDER:
        unread.append(f"--reference_cache {config.reference_cache}")
    if unread:
        raise ConfigError(f"{unread[0]} is only read by --engine packed{why}.\n  {remedy}.")
