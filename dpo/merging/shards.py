"""Merges the base's safetensors files into the merged model's, with one output shard in memory at a time."""

__all__ = ["Written", "find_shards", "merge_shards", "why_whole"]

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm
from transformers.modeling_utils import str_to_torch_dtype
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from dpo.errors import ModelError
from dpo.hub import find_file
from dpo.merging.adapted import AdaptedModel


@dataclass(frozen=True, kw_only=True)
class Written:
    """The dtypes and the number of files of a merged model's weights."""

    num_shards: int
    dtypes: tuple[torch.dtype, ...]
    """All floating-point dtypes in the files, each once."""
    stored: Mapping[str, torch.dtype]
    """Name of a parameter -> its dtype in the files, without parameters that loading computes from other tensors."""

    @property
    def dtype(self) -> str:
        """The dtypes as text, such as "bfloat16 and float32"."""
        return " and ".join(str(dtype).removeprefix("torch.") for dtype in self.dtypes)

    def dtype_of(self, parameter: str) -> torch.dtype:
        """The stored dtype of a parameter; float32, which rounds nothing, if it is not known."""
        return self.stored.get(parameter, self.dtypes[0] if len(self.dtypes) == 1 else torch.float32)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a tensor of the merged model comes from."""

    file: Path
    """File of the base."""
    key: str
    """Name of the tensor in that file."""
    parameter: str | None
    """The model's parameter that the tensor is; None if loading converts it."""
    stored: torch.dtype
    merged: torch.Tensor
    """Shape and dtype of the written tensor, on the meta device."""


def find_shards(base: str, revision: str | None = None) -> dict[str, Path] | None:
    """Find the file of each of the base's tensors.

    Returns:
        Name of a tensor -> its file; None if the base has no safetensors files.

    Raises:
        ModelError: if the index is broken, or a file that it lists is missing.
    """
    if single := find_file(base, SAFE_WEIGHTS_NAME, revision, optional=True):
        with open_tensors(single) as file:
            return dict.fromkeys(file.keys(), single)
    index = find_file(base, SAFE_WEIGHTS_INDEX_NAME, revision, optional=True)
    if index is None:
        return None
    try:
        names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, LookupError, TypeError) as error:
        raise ModelError(f"{index}: expected an index of safetensors files, with the key weight_map") from error
    files = {}
    for name in dict.fromkeys(names.values()):
        file = find_file(base, name, revision)
        if file is None:
            raise ModelError(f"{index} lists {name}, but this file is missing.\n  Download the base again.")
        files[name] = file
    return {key: files[name] for key, name in names.items()}


def open_tensors(file: Path) -> safe_open:
    try:
        return safe_open(file, "pt")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: expected a safetensors file: {error}.\n  Download the base again.") from error


def why_whole(adapted: AdaptedModel, files: Mapping[str, Path] | None) -> str | None:
    """Why a merge needs the whole base in memory; None if it works shard by shard."""
    if files is None:
        return "it has no safetensors files"
    stored = {adapted.parameter_of(key) for key in files}
    missing = [name for name in sorted(adapted.changed()) if not adapted.sharing(name) & stored]
    return f"its files do not contain {missing[0]} in the model's form" if missing else adapted.entangled


def merge_shards(
    adapted: AdaptedModel,
    files: Mapping[str, Path],
    folder: Path,
    *,
    dtype: torch.dtype | None,
    max_shard_size: str,
    progress: bool = False,
) -> Written:
    """Write the merged weights, with the file names and the index that transformers uses.

    Args:
        adapted: The base and its adapter.
        files: Name of each of the base's tensors -> its file.
        folder: Folder to write to.
        dtype: Dtype to store floating-point weights in; None keeps the base's dtype of each weight.
        max_shard_size: Largest size of a file, such as 5GB. A larger tensor gets its own file.
        progress: Whether to show a progress bar.

    Raises:
        ModelError: if a tensor does not fit or cannot be merged.
    """
    sources = plan(adapted, files, dtype)
    shards = split_torch_state_dict_into_shards(
        {name: source.merged for name, source in sources.items()}, max_shard_size=max_shard_size
    )
    for name, keys in tqdm(shards.filename_to_tensors.items(), unit="shard", disable=not progress):
        write_shard(adapted, {key: sources[key] for key in keys}, folder / name)
    if shards.is_sharded:
        index = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    floats = [source for source in sources.values() if source.merged.is_floating_point()]
    return Written(
        num_shards=len(shards.filename_to_tensors),
        dtypes=tuple(dict.fromkeys(source.merged.dtype for source in floats)),
        stored={source.parameter: source.merged.dtype for source in floats if source.parameter is not None},
    )


def plan(adapted: AdaptedModel, files: Mapping[str, Path], dtype: torch.dtype | None) -> dict[str, Source]:
    """List the merged model's tensors by name, in the order of the base's files, without reading any."""
    untied = adapted.untied()
    parameters = {adapted.parameter_of(key) for key in files}
    sources = {}
    for path in dict.fromkeys(files.values()):
        with open_tensors(path) as file:
            for key in file.keys():  # noqa: SIM118  # not a dict
                view = file.get_slice(key)
                stored = str_to_torch_dtype[view.get_dtype()]
                wanted = dtype if dtype is not None and stored.is_floating_point else stored
                merged = torch.empty(view.get_shape(), dtype=wanted, device="meta")
                parameter = adapted.parameter_of(key)
                names: dict[str, str | None] = {key: parameter if parameter in adapted.shapes else None}
                if parameter in untied:  # the base stores one tensor for all its names; the merge needs one for each
                    names |= {name: name for name in untied if name in adapted.sharing(parameter) - parameters}
                    parameters |= {*names}
                for name, target in names.items():
                    sources[name] = Source(file=path, key=key, parameter=target, stored=stored, merged=merged)
    return sources


def write_shard(adapted: AdaptedModel, sources: Mapping[str, Source], to: Path) -> None:
    """Merge some tensors and write them to a file. They stay in memory, and the base's files open, until it returns."""
    with ExitStack() as stack:
        files = {path: stack.enter_context(open_tensors(path)) for path in {s.file for s in sources.values()}}
        tensors = {}
        for name, source in sources.items():
            tensor = files[source.file].get_tensor(source.key)
            if source.parameter is not None:
                tensor = adapted.merge(source.parameter, tensor)
            tensors[name] = tensor.to(source.merged.dtype).contiguous()
        try:
            save_file(tensors, to, metadata={"format": "pt"})
        except SafetensorError as error:
            raise ModelError(f"{to}: cannot be written: {error}") from error
