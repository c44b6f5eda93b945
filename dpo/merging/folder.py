"""The merged model's folder: checks it before the merge, and writes the files next to the weights. No torch."""

__all__ = ["check_output", "write_config"]

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dpo.errors import ConfigError
from dpo.folders import MERGE_REPORT, check_folder
from dpo.hub import find_file
from dpo.models.locating import LocatedModel

if TYPE_CHECKING:
    from transformers import PretrainedConfig

GENERATION = "generation_config.json"


def check_output(folder: Path, *, overwrite: bool, inputs: Iterable[str]) -> None:
    """Refuse a folder that cannot be created, or whose content would be lost.

    Args:
        folder: The folder for the merged model.
        overwrite: Whether an earlier merge may be replaced.
        inputs: Folders or Hub ids that the merge reads.

    Raises:
        ConfigError: if the folder is such a folder. The message says what it contains.
    """
    check_folder("output", folder)
    for name in inputs:
        source = Path(name).resolve()
        if source.is_dir() and folder.resolve() in (source, *source.parents):
            raise ConfigError(f"--output {folder} contains {name}, which the merge reads.\n  Choose another folder.")
    if folder.is_symlink():
        raise ConfigError(
            f"--output {folder} is a symbolic link, and the merge would replace it.\n  Pass the folder itself."
        )
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise ConfigError(f"--output {folder} is not empty.\n  Choose another folder, or pass --overwrite.")
    if not (folder / MERGE_REPORT).is_file():
        raise ConfigError(
            f"--overwrite: {folder} was not made by `dpo merge`, so it was not replaced.\n  Choose another folder."
        )


def write_config(folder: Path, config: "PretrainedConfig", located: LocatedModel) -> None:
    """Write the model's configuration, the generation configuration and the base's own code.

    The generation configuration is the adapter's if it has one, otherwise the base's. Existing safetensors files get
    the permissions of config.json.
    """
    config.save_pretrained(folder)
    generation = find_file(located.base, GENERATION, located.base_revision, optional=True)
    if located.adapter is not None:
        generation = find_file(located.adapter, GENERATION, located.adapter_revision, optional=True) or generation
    if generation is not None:
        shutil.copyfile(generation, folder / GENERATION)
    if Path(located.base).is_dir():
        for code in Path(located.base).glob("*.py"):
            shutil.copyfile(code, folder / code.name)
    for weights in folder.glob("*.safetensors"):  # safetensors makes them readable for the owner only
        weights.chmod((folder / "config.json").stat().st_mode)
