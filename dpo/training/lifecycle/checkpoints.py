"""Finds the last complete checkpoint of a run, and reads the JSON files of a checkpoint."""

__all__ = ["STATE", "last_checkpoint", "read_object"]

from pathlib import Path
from typing import Any

from dpo.errors import ConfigError, TokenizerError
from dpo.hub import find_file, read_json

STATE = "trainer_state.json"
"""The trainer state in a checkpoint, with the number of steps taken. transformers writes it last."""


def last_checkpoint(output_dir: str) -> str | None:
    """The complete checkpoint with the most steps, or None.

    A checkpoint without STATE is incomplete, because its writing was interrupted. Resuming from it would restart at
    step 0.
    """
    complete = {
        int(step): file.parent
        for file in Path(output_dir).glob(f"checkpoint-*/{STATE}")
        if (step := file.parent.name.removeprefix("checkpoint-")).isdecimal()
    }
    return str(complete[max(complete)]) if complete else None


def read_object(checkpoint: str, name: str) -> dict[str, Any]:
    """Read a JSON object from a file of a checkpoint.

    Args:
        checkpoint: Folder of the checkpoint.
        name: Name of the file.

    Returns:
        The object; {} if there is no such file.

    Raises:
        ConfigError: if the file does not contain a JSON object.
    """
    try:
        return read_json(find_file(checkpoint, name))
    except TokenizerError as error:
        raise ConfigError(f"--resume_from_checkpoint {checkpoint}: expected a JSON object: {error}") from error
