"""Reads DeepSpeed's JSON and checks it against the flags, before a model is loaded."""

__all__ = ["check_mismatches", "load_deepspeed_config"]

import json
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from dpo.errors import ConfigError, unknown_name
from dpo.folders import similar_path
from dpo.shipped import find_file

if TYPE_CHECKING:
    from transformers import TrainingArguments

TOP_LEVEL = (
    "activation_checkpointing",
    "amp",
    "bf16",
    "comms_logger",
    "communication_data_type",
    "csv_monitor",
    "dump_state",
    "flops_profiler",
    "fp16",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer",
    "prescale_gradients",
    "scheduler",
    "steps_per_print",
    "tensorboard",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "wall_clock_breakdown",
    "wandb",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
    "zero_optimization",
)
"""Common keys, to find misspelled ones. DeepSpeed accepts more, and silently ignores unknown keys."""
GATHER = "stage3_gather_16bit_weights_on_model_save"
FILLED_IN = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
"""Keys that DeepSpeed needs and the flags determine. They are set to "auto" if the JSON omits them."""


def load_deepspeed_config(file: Path | str) -> dict[str, Any]:
    """Read a DeepSpeed configuration from a file, or from JSON text that starts with a brace.

    At stage 3 the option that gathers the final model on saving is turned on if the JSON omits it, so that the saved
    model is complete.

    Args:
        file: Path of the JSON file, or the JSON text itself.

    Returns:
        The configuration. Every key of FILLED_IN is set.

    Raises:
        ConfigError: if the file is missing or is not a JSON object, a key or value is wrong, or the JSON forbids
            gathering the final model.
    """
    try:
        is_text = str(file).startswith("{")
        config = json.loads(str(file) if is_text else find_file(Path(file)).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--deepspeed {file}: cannot be read: {error.strerror}.{similar_path(file)}") from error
    except ValueError as error:
        raise ConfigError(
            f"--deepspeed {file}: not valid JSON: {error}\n"
            "  JSON allows neither comments nor a comma after the last entry."
        ) from error
    if not isinstance(config, dict):
        raise ConfigError(f"--deepspeed {file}: expected a JSON object, found {type(config).__name__}")
    for name in config.keys() - {*TOP_LEVEL}:
        if near := get_close_matches(name, TOP_LEVEL, n=1, cutoff=0.85):
            raise ConfigError(f"--deepspeed {file}: unknown key '{name}'. Did you mean {near[0]}?")
    for name in FILLED_IN:
        config.setdefault(name, "auto")
    zero = config.setdefault("zero_optimization", {})
    check_zero(file, zero)
    if zero.setdefault("stage", 0) == 3 and not zero.setdefault(GATHER, True):
        raise ConfigError(
            f"--deepspeed {file}: zero_optimization.{GATHER} is false, so output_dir would contain shards instead of a "
            "model.\n  Set it to true."
        )
    return config


def check_zero(file: Path | str, zero: dict[str, Any]) -> None:
    """Check zero_optimization now, because DeepSpeed would check it only after the model is loaded.

    Raises:
        ConfigError: if a key is unknown, or a value is wrong.
    """
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig  # takes 2 s, so it is imported only here

    fields = DeepSpeedZeroConfig.model_fields
    known = {*fields, *(field.alias for field in fields.values() if field.alias)}
    for name in zero:
        if name not in known:
            raise ConfigError(f"--deepspeed {file}: {unknown_name('key of zero_optimization', name, known)}")
    if (stage := zero.get("stage", 0)) not in (0, 1, 2, 3):
        raise ConfigError(f"--deepspeed {file}: zero_optimization.stage: expected 0, 1, 2 or 3, found {stage!r}")
    try:
        DeepSpeedZeroConfig(**{name: value for name, value in zero.items() if value != "auto"})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["zero_optimization", *map(str, first["loc"])])
        raise ConfigError(f"--deepspeed {file}: {key}: {first['msg']}, found {first['input']!r}") from error


def check_mismatches(args: "TrainingArguments", file: str | None) -> None:
    """Check that no value in the JSON contradicts a flag.

    Args:
        args: The run's flags, after transformers has read the JSON.
        file: The --deepspeed path as the user gave it.

    Raises:
        ConfigError: if values differ. The message names the JSON's key and the flag, with both values.
    """
    plugin = getattr(args, "hf_deepspeed_config", None)
    if plugin is None or not plugin.mismatches:
        return
    found = [line.removeprefix("- ds ").replace(" vs hf ", ", but the flags give ") for line in plugin.mismatches]
    raise ConfigError(
        f"--deepspeed {file} contradicts the flags:\n"
        + "\n".join(f"  {line}" for line in found)
        + '\n  Write "auto" in the JSON, or pass the same value as the flag.'
    )
