"""--resume_from_checkpoint: which checkpoint, and whether it is one of this run's model."""

__all__ = ["STATE", "check_checkpoint", "find_checkpoint", "last_checkpoint", "read_object"]

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo.errors import ConfigError, TokenizerError
from dpo.folders import RESULTS
from dpo.hub import find_file, read_json
from dpo.models import ADAPTER_CONFIG

if TYPE_CHECKING:
    from dpo.training.config import TrainingConfig

STATE = "trainer_state.json"
"""A checkpoint's file of the steps it has taken, written last."""


def find_checkpoint(config: "TrainingConfig") -> None:
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


def last_checkpoint(output_dir: str) -> str | None:
    """The one of most steps, without those whose writing was ended: from such a one the steps would begin at 0."""
    whole = {
        int(step): file.parent
        for file in Path(output_dir).glob(f"checkpoint-*/{STATE}")
        if (step := file.parent.name.removeprefix("checkpoint-")).isdecimal()
    }
    return str(whole[max(whole)]) if whole else None


def check_checkpoint(config: "TrainingConfig") -> None:
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


def read_object(checkpoint: str, name: str) -> dict[str, Any]:
    """What a file of a checkpoint holds, nothing where it has no such file."""
    try:
        return read_json(find_file(checkpoint, name))
    except TokenizerError as error:
        raise ConfigError(f"--resume_from_checkpoint {checkpoint}: expected a JSON object: {error}") from error
