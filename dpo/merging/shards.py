"""Weights on their way from the base's safetensors to the merged model's, a shard of the output in memory at a time."""

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
    """The weights of a merged folder."""

    num_shards: int
    dtypes: tuple[torch.dtype, ...]
    """Of what is stored in floating point, each once."""
    stored: Mapping[str, torch.dtype]
    """Of the model's parameters, by name; without those that loading makes of other tensors than the files hold."""

    @property
    def dtype(self) -> str:
        """In words."""
        return " and ".join(str(dtype).removeprefix("torch.") for dtype in self.dtypes)

    def dtype_of(self, parameter: str) -> torch.dtype:
        """What a parameter is stored in; float32, which rounds nothing, where that is not known."""
        return self.stored.get(parameter, self.dtypes[0] if len(self.dtypes) == 1 else torch.float32)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a tensor of the merged model comes from."""

    file: Path
    """Of the base."""
    key: str
    """Its name there."""
    parameter: str | None
    """The model's parameter that it is, None where it is none as it stands."""
    stored: torch.dtype
    merged: torch.Tensor
    """Shape and dtype of what is written, on the meta device."""


def find_shards(base: str, revision: str | None = None) -> dict[str, Path] | None:
    """The file of each of the base's tensors, None where it has no safetensors.

    Raises:
        ModelError: its index is broken, or a file that it names is missing.
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
        raise ModelError(f"{index}: expected an index of shards, with weight_map") from error
    files = {}
    for name in dict.fromkeys(names.values()):
        file = find_file(base, name, revision)
        if file is None:
            raise ModelError(f"{index} names {name}, which is not there.\n  Download the base anew.")
        files[name] = file
    return {key: files[name] for key, name in names.items()}


def open_tensors(file: Path) -> safe_open:
    try:
        return safe_open(file, "pt")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: expected a file of safetensors: {error}.\n  Download the base anew.") from error


def why_whole(adapted: AdaptedModel, files: Mapping[str, Path] | None) -> str | None:
    """Why a merge needs the whole base in memory, None where it goes shard by shard."""
    if files is None:
        return "it has no safetensors files"
    stored = {adapted.parameter_of(key) for key in files}
    missing = [name for name in sorted(adapted.changed()) if not adapted.sharing(name) & stored]
    return f"its files have no {missing[0]} as the model has it" if missing else adapted.entangled


def merge_shards(
    adapted: AdaptedModel,
    files: Mapping[str, Path],
    folder: Path,
    *,
    dtype: torch.dtype | None,
    max_shard_size: str,
    progress: bool = False,
) -> Written:
    """Write the merged weights, their files' names and index as transformers' own.

    Args:
        adapted: The base and its adapter.
        files: The file of each of the base's tensors.
        folder: Where to.
        dtype: What floating-point weights are stored in; None keeps each as the base has it.
        max_shard_size: Of each file, such as 5GB. A larger tensor has a file of its own.
        progress: Whether to show a bar.

    Raises:
        ModelError: a tensor does not fit or cannot be merged.
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
    """The merged model's tensors by name, in the order of the base's files, without reading one."""
    parted = adapted.parted()
    parameters = {adapted.parameter_of(key) for key in files}
    sources = {}
    for path in dict.fromkeys(files.values()):
        with open_tensors(path) as file:
            for key in file.keys():  # noqa: SIM118  # it is no dict
                view = file.get_slice(key)
                stored = str_to_torch_dtype[view.get_dtype()]
                wanted = dtype if dtype is not None and stored.is_floating_point else stored
                merged = torch.empty(view.get_shape(), dtype=wanted, device="meta")
                parameter = adapted.parameter_of(key)
                names: dict[str, str | None] = {key: parameter if parameter in adapted.shapes else None}
                if parameter in parted:  # of those that part, this file has one
                    names |= {name: name for name in parted if name in adapted.sharing(parameter) - parameters}
                    parameters |= {*names}
                for name, its in names.items():
                    sources[name] = Source(file=path, key=key, parameter=its, stored=stored, merged=merged)
    return sources


def write_shard(adapted: AdaptedModel, sources: Mapping[str, Source], to: Path) -> None:
    """Merge and write some tensors. The base's files are open, and these in memory, until it returns."""
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
