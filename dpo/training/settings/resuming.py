"""--resume_from_checkpoint: which checkpoint, and whether its run and its model are this one's."""

__all__ = ["check_checkpoint", "find_checkpoint", "flag_facts"]

from pathlib import Path
from typing import Any

from dpo.errors import ConfigError
from dpo.folders import RESULTS
from dpo.models.locating import ADAPTER_CONFIG
from dpo.training.distributed import is_fsdp
from dpo.training.lifecycle.checkpoints import STATE, last_checkpoint, read_object
from dpo.training.settings.fields import TrainingFields

FLAGS = (
    *("stage", "global_batch_size", "seed", "data_seed", "train_sampling_strategy", "dataloader_drop_last"),
    *("optim", "learning_rate", "weight_decay"),
)


def find_checkpoint(config: TrainingFields) -> None:
    """Put in place of 'latest' the checkpoint that it means, and refuse what is none.

    Raises:
        ConfigError: saying what is expected.
    """
    wanted = config.resume_from_checkpoint
    if not wanted:
        return
    if str(wanted).lower() in ("true", "latest"):
        config.resume_from_checkpoint = last_checkpoint(str(config.output_dir))
        if config.resume_from_checkpoint is None:
            raise ConfigError(
                f"--resume_from_checkpoint: {config.output_dir} holds no checkpoint-* folder that is whole.\n"
                "  Leave it out to begin."
            )
    elif not Path(wanted).is_dir():
        raise ConfigError(f"--resume_from_checkpoint {wanted}: there is no such folder")
    elif not (Path(wanted) / STATE).exists() or (Path(wanted) / RESULTS).exists():
        raise ConfigError(
            f"--resume_from_checkpoint {wanted} is no checkpoint.\n  Expected a checkpoint-* folder of an output_dir."
        )


def check_checkpoint(config: TrainingFields) -> None:
    """Refuse to go on with a whole model's checkpoint as an adapter's, or the other way round, or at another rank.

    Raises:
        ConfigError: saying what the first run was.
    """
    if not config.resume_from_checkpoint:
        return
    folder = Path(config.resume_from_checkpoint)
    adapter = read_object(str(folder), ADAPTER_CONFIG)
    if adapter and not config.trains_adapter:
        raise ConfigError(
            f"--resume_from_checkpoint {folder} is an adapter's, and this run trains the whole model.\n"
            f"  Pass the flags of the first run, such as --lora_rank {adapter.get('r')}."
        )
    if not adapter and config.trains_adapter and (folder / "config.json").exists():
        raise ConfigError(
            f"--resume_from_checkpoint {folder} is a whole model's, and this run trains an adapter.\n"
            "  Pass the flags of the first run, without --lora_rank."
        )
    for flag, name in (("lora_rank", "r"), ("use_dora", "use_dora"), ("use_rslora", "use_rslora")):
        asked, found = getattr(config, flag), adapter.get(name)
        if config.lora_rank is not None and found is not None and asked != found:
            raise ConfigError(
                f"--{flag} {asked}: the adapter in --resume_from_checkpoint {folder} has {found}: pass that."
            )


def flag_facts(config: TrainingFields) -> dict[str, Any]:
    """What runs of one and the same checkpoints have in common, as far as flags say it, by what a user calls it."""
    values = {f"--{name}": getattr(config, name) for name in FLAGS}
    return {name: getattr(value, "value", value) for name, value in values.items()} | {"sharding": sharding_of(config)}


def sharding_of(config: TrainingFields) -> str:
    """How a checkpoint's optimizer is written. DeepSpeed reads ZeRO-1's at ZeRO-2 and back, on as many devices."""
    if is_fsdp(config):
        return "FSDP"
    if not isinstance(config.deepspeed, dict):
        return "none"
    stage = config.deepspeed["zero_optimization"]["stage"]
    if stage == 0:
        return "DeepSpeed's without ZeRO"
    return f"{'ZeRO-3' if stage == 3 else 'ZeRO-1 or 2'} on {config.world_size} device(s)"
