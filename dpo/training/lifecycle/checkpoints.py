"""What a checkpoint folder holds, and which one of a run is the last whole one."""

__all__ = ["STATE", "last_checkpoint", "read_object"]

from pathlib import Path
from typing import Any

from dpo.errors import ConfigError, TokenizerError
from dpo.hub import find_file, read_json

STATE = "trainer_state.json"
"""A checkpoint's file of the steps it has taken, written last."""


def last_checkpoint(output_dir: str) -> str | None:
    """The one of most steps, without those whose writing was ended: from such a one the steps would begin at 0."""
    whole = {
        int(step): file.parent
        for file in Path(output_dir).glob(f"checkpoint-*/{STATE}")
        if (step := file.parent.name.removeprefix("checkpoint-")).isdecimal()
    }
    return str(whole[max(whole)]) if whole else None


def read_object(checkpoint: str, name: str) -> dict[str, Any]:
    """What a file of a checkpoint holds, nothing where it has no such file."""
    try:
        return read_json(find_file(checkpoint, name))
    except TokenizerError as error:
        raise ConfigError(f"--resume_from_checkpoint {checkpoint}: expected a JSON object: {error}") from error
