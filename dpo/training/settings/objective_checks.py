"""What can be seen to be wrong with what a run is to minimize: losses, their options, the reference."""

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
"""Options that only some losses read. The others would ignore them without a word."""

OF_PAIRS = (
    *("beta", "reference_free", "ld_alpha", "use_weighting", "weight_by_score", "sync_ref_model"),
    *("ref_model_sync_steps", "ref_model_mixup_alpha", "precompute_ref_log_probs", "precompute_ref_batch_size"),
)
"""Flags that a stage without pairs does not read, beside LOSS_OPTIONS."""

NO_FOLDER = ("auto", "none", "false")
"""Values of --reference_cache that name no folder of the user's."""


def check_loss_flags(config: TrainingFields) -> None:
    """Refuse losses where there is one, or two ways to name them. Asked before the default is filled in.

    Raises:
        ConfigError: saying which flag, and what to do.
    """
    given = [name for name in ("loss", "loss_type", "loss_weights") if getattr(config, name)]
    if given and config.stage == "sft":
        raise ConfigError(
            f"--{given[0]} is for pairs, and --stage sft has one loss: the answers' negative log-probability, a mean "
            f"over their tokens.\n  Leave --{given[0]} out; for sft beside DPO, leave --stage out and pass --loss "
            "sigmoid:1.0 sft:0.2."
        )
    if given[:1] == ["loss"] and given[1:]:
        raise ConfigError("--loss says what --loss_type and --loss_weights do: pass one or the other")


def check_objective(config: TrainingFields) -> None:
    """Refuse what contradicts itself or would be ignored.

    Raises:
        ConfigError: saying which flag, and what to do.
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
    """Refuse what belongs to pairs."""
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    for name in (*LOSS_OPTIONS, *OF_PAIRS):
        if getattr(config, name) != defaults[name]:
            raise ConfigError(f"--{name} is for pairs, and --stage sft has answers alone: leave it out.")


def check_reference_cache(config: TrainingFields) -> None:
    if objective_of(config).needs_reference:
        if config.engine == "packed" and config.reference_folder is not None:
            check_folder("reference_cache", config.reference_folder)
    elif config.reference_cache not in NO_FOLDER:
        what = "answers" if config.stage == "sft" else " and ".join(config.loss_type)
        raise ConfigError(
            f"--reference_cache {config.reference_cache}: no reference is read with {what}: leave it out."
        )


def check_loss(config: TrainingFields) -> None:
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
    if config.loss_type == ["sft"] and config.beta != defaults["beta"]:
        raise ConfigError(f"--beta {config.beta} is not read by --loss sft: leave it out.")
    if config.train_sampling_strategy not in ("random", "sequential"):
        raise ConfigError(
            f"--train_sampling_strategy {config.train_sampling_strategy} measures rows, which pairs are not: pass "
            "random or sequential."
        )
    for option in ("ref_model_sync_steps", "ref_model_mixup_alpha"):
        if getattr(config, option) != defaults[option] and not config.sync_ref_model:
            raise ConfigError(f"--{option} is read beside --sync_ref_model alone: pass both or neither.")
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
    for option in ("use_weighting", "weight_by_score"):
        if getattr(config, option) and (other := [name for name, loss in losses.items() if loss.compares_pairs]):
            raise ConfigError(f"--{option} weighs pairs, which --loss {' '.join(other)} does not keep apart.")


def check_padded(config: TrainingFields, reason: str | None) -> None:
    """Refuse what the packed engine alone reads, and what TRL's loss would compute otherwise than asked.

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
    asked += [f"--{name}" for name in ("reference_free", "weight_by_score") if getattr(config, name)]
    why = f", and this run is padded, since {reason}" if reason and config.engine == "packed" else ""
    way_out = "leave --engine out" if config.engine == "padded" else "leave it out"
    if asked:
        raise ConfigError(
            f"{asked[0]} is computed by --engine packed alone{why}.\n"
            f"  --engine padded computes TRL's loss, which does not have it: {way_out}."
        )
    unread = ["--max_tokens_per_micro_batch"] if config.max_tokens_per_micro_batch is not None else []
    if config.reference_cache not in NO_FOLDER:
        unread.append(f"--reference_cache {config.reference_cache}")
    if unread:
        raise ConfigError(f"{unread[0]} is read by --engine packed alone{why}: {way_out}.")
