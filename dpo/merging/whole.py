"""Merges with the whole base in memory, for weights that cannot be merged one by one."""

__all__ = ["merge_whole"]

from pathlib import Path

import torch

from dpo.errors import ModelError
from dpo.merging.adapted import AdaptedModel
from dpo.merging.shards import Written
from dpo.models.loading import load_causal_lm
from dpo.models.locating import LocatedModel


def merge_whole(
    adapted: AdaptedModel,
    located: LocatedModel,
    folder: Path,
    *,
    dtype: torch.dtype,
    max_shard_size: str,
    trust_remote_code: bool = False,
) -> Written:
    """Load the base in float32, merge the adapter into it with PEFT, and save it.

    Args:
        adapted: The base and its adapter.
        located: Where the base and the adapter are.
        folder: Folder to write to.
        dtype: Dtype to store the weights in.
        max_shard_size: Largest size of a file, such as 5GB.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        ModelError: if the model cannot be loaded, or the adapter changes only one of two tied weights.
    """
    if tied := [name for name in adapted.untied() if name.rpartition(".")[0] in adapted.layers]:
        raise ModelError(
            f"{located.base}: {tied[0]} is tied to another weight, and the adapter changes only one of the two.\n"
            "  If the base has no safetensors files, save it as safetensors first. Otherwise use the base with the "
            "adapter, unmerged."
        )
    model = load_causal_lm(located, dtype=torch.float32, trust_remote_code=trust_remote_code)
    try:
        merged = model.merge_and_unload(safe_merge=True).to(dtype)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise ModelError(f"--adapter {located.adapter} cannot be merged into {located.base}: {error}") from error
    merged.save_pretrained(folder, max_shard_size=max_shard_size)
    return Written(
        num_shards=len([*folder.glob("*.safetensors")]),
        dtypes=(dtype,),
        stored={name: dtype for name, parameter in merged.named_parameters() if parameter.is_floating_point()},
    )
