"""Checks of the LoRA and QLoRA flags."""

__all__ = ["check_lora"]

import math
from importlib.util import find_spec

from dpo.errors import ConfigError
from dpo.training.settings.fields import TrainingFields

OF_NEW_ADAPTERS = ("lora_alpha", "lora_dropout", "lora_target_modules", "lora_all_linear", "use_dora", "use_rslora")
"""Flags that require --lora_rank."""


def check_lora(config: TrainingFields) -> None:
    """Check the LoRA flags, and whether --load_in_4bit is possible.

    Raises:
        ConfigError: if a flag is out of range, contradicts another, or needs a flag or package that is missing.
    """
    if config.load_in_4bit:
        check_quantization(config)
    if config.lora_rank is None:
        defaults = type(config).__dataclass_fields__
        remedy = "pass --lora_rank as well, such as --lora_rank 16."
        if config.trains_adapter:
            remedy = f"leave it out, since {config.model_name_or_path} is an adapter that has its own configuration."
        for name in OF_NEW_ADAPTERS:
            if getattr(config, name) != defaults[name].default:
                raise ConfigError(f"--{name} belongs to a new LoRA adapter: {remedy}")
        return
    if config.located.adapter is not None:
        raise ConfigError(
            f"--lora_rank {config.lora_rank}: {config.model_name_or_path} is already an adapter.\n"
            "  Leave --lora_rank out to continue training it, or merge it first: dpo merge"
        )
    if config.lora_rank < 1:
        raise ConfigError(f"--lora_rank {config.lora_rank}: expected at least 1")
    if config.lora_alpha is not None and not 0 < config.lora_alpha < math.inf:
        raise ConfigError(f"--lora_alpha {config.lora_alpha}: expected a number above 0")
    if not 0 <= config.lora_dropout < 1:
        raise ConfigError(f"--lora_dropout {config.lora_dropout}: expected 0 or more, and less than 1")
    if config.lora_target_modules and config.lora_all_linear:
        raise ConfigError("--lora_target_modules and --lora_all_linear both select layers: pass one of the two.")
    if config.lora_all_linear is False and not config.lora_target_modules:
        raise ConfigError("--lora_all_linear false leaves no layer to train: name layers with --lora_target_modules.")


def check_quantization(config: TrainingFields) -> None:
    if not config.trains_adapter:
        raise ConfigError(
            "--load_in_4bit holds the model in 4 bits under an adapter, but this run trains the whole model.\n"
            "  Pass --lora_rank as well, such as 16, or an adapter's folder as --model_name_or_path."
        )
    if find_spec("bitsandbytes") is None:
        raise ConfigError("--load_in_4bit needs bitsandbytes, which is not installed.\n  Run: pip install bitsandbytes")
    zero = config.deepspeed.get("zero_optimization", {}) if isinstance(config.deepspeed, dict) else {}
    if zero.get("stage") == 3:
        raise ConfigError(
            "--load_in_4bit with ZeRO-3 is not supported: ZeRO-3 does not shard 4-bit weights.\n"
            "  Pass --deepspeed ds_configs/zero2.json, or leave --load_in_4bit out."
        )
