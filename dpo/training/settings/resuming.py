"""--resume_from_checkpoint: finds the checkpoint and checks that it fits this run."""

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
    """Replace 'latest' by the checkpoint that it means, and check that the folder is a checkpoint.

    Raises:
        ConfigError: if there is no such folder, it is not a checkpoint, or output_dir contains none.
    """
    wanted = config.resume_from_checkpoint
    if not wanted:
        return
    if str(wanted).lower() in ("true", "latest"):
        config.resume_from_checkpoint = last_checkpoint(str(config.output_dir))
        if config.resume_from_checkpoint is None:
            raise ConfigError(
                f"--resume_from_checkpoint {wanted}: {config.output_dir} contains no complete checkpoint-* folder.\n"
                "  Leave --resume_from_checkpoint out to start from the beginning."
            )
    elif not Path(wanted).is_dir():
        raise ConfigError(f"--resume_from_checkpoint {wanted}: there is no such folder")
    elif not (Path(wanted) / STATE).exists() or (Path(wanted) / RESULTS).exists():
        raise ConfigError(
            f"--resume_from_checkpoint {wanted} is not a checkpoint.\n"
            "  Expected a checkpoint-* folder in the output_dir of an earlier run."
        )


def check_checkpoint(config: TrainingFields) -> None:
    """Check that the checkpoint and this run train the same kind of model.

    Raises:
        ConfigError: if one trains the whole model and the other an adapter, or their adapters differ.
    """
    if not config.resume_from_checkpoint:
        return
    folder = Path(config.resume_from_checkpoint)
    adapter = read_object(str(folder), ADAPTER_CONFIG)
    if adapter and not config.trains_adapter:
        raise ConfigError(
            f"--resume_from_checkpoint {folder} is the checkpoint of an adapter, but this run trains the whole model.\n"
            f"  Pass the flags of the first run, such as --lora_rank {adapter.get('r')}."
        )
    if not adapter and config.trains_adapter and (folder / "config.json").exists():
        raise ConfigError(
            f"--resume_from_checkpoint {folder} is the checkpoint of a whole model, but this run trains an adapter.\n"
            "  Pass the flags of the first run, without --lora_rank."
        )
    for flag, name in (("lora_rank", "r"), ("use_dora", "use_dora"), ("use_rslora", "use_rslora")):
        asked, found = getattr(config, flag), adapter.get(name)
        if config.lora_rank is not None and found is not None and asked != found:
            raise ConfigError(
                f"--{flag} {asked}: the adapter in --resume_from_checkpoint {folder} was trained with {found}.\n"
                f"  Pass --{flag} {found}."
            )


def flag_facts(config: TrainingFields) -> dict[str, Any]:
    """The flags that must not change when a run resumes. The keys are the names that an error shows to the user.

    Checkpoints store these names and values, so they must stay the same between versions.
    """
    values = {f"--{name}": getattr(config, name) for name in FLAGS}
    return {name: getattr(value, "value", value) for name, value in values.items()} | {"sharding": sharding_of(config)}


def sharding_of(config: TrainingFields) -> str:
    """How the optimizer state in a checkpoint is sharded.

    DeepSpeed can resume a ZeRO-1 checkpoint with ZeRO-2 and vice versa, on the same number of devices.
    """
    if is_fsdp(config):
        return "FSDP"
    if not isinstance(config.deepspeed, dict):
        return "none"
    stage = config.deepspeed["zero_optimization"]["stage"]
    if stage == 0:
        return "DeepSpeed's without ZeRO"
    return f"{'ZeRO-3' if stage == 3 else 'ZeRO-1 or 2'} on {config.world_size} device(s)"
