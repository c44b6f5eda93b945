"""DeepSpeed's JSON, checked against the flags before a model is loaded."""

__all__ = ["check_mismatches", "load_deepspeed_config"]

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo.errors import ConfigError

if TYPE_CHECKING:
    from transformers import TrainingArguments

GATHER = "stage3_gather_16bit_weights_on_model_save"


def load_deepspeed_config(file: Path | str) -> dict[str, Any]:
    """Read a DeepSpeed configuration, from a file or from JSON text that starts with a brace.

    At stage 3 the final model is to be whole, so the flag that gathers it on saving is filled in where it is missing.

    Raises:
        ConfigError: the file is missing or no JSON object, or forbids gathering the final model.
    """
    try:
        is_text = str(file).startswith("{")
        config = json.loads(str(file) if is_text else Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--deepspeed {file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"--deepspeed {file}: no JSON: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"--deepspeed {file}: expected a JSON object, found {type(config).__name__}")
    zero = config.setdefault("zero_optimization", {})
    if zero.setdefault("stage", 0) == 3 and not zero.setdefault(GATHER, True):
        raise ConfigError(
            f"--deepspeed {file}: zero_optimization.{GATHER} is false, so output_dir would hold shards and no model.\n"
            "  Set it to true."
        )
    return config


def check_mismatches(args: "TrainingArguments", file: str | None) -> None:
    """Refuse values of the JSON that contradict flags.

    Raises:
        ConfigError: naming the JSON's key and the flag, with both values.
    """
    plugin = getattr(args, "hf_deepspeed_config", None)
    if plugin is None or not plugin.mismatches:
        return
    found = [line.removeprefix("- ds ").replace(" vs hf ", ", but the flags give ") for line in plugin.mismatches]
    raise ConfigError(
        f"--deepspeed {file} contradicts the flags:\n"
        + "\n".join(f"  {line}" for line in found)
        + '\n  Write "auto" in the JSON, or pass the same value as a flag.'
    )
