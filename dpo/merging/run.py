"""Runs a merge: write a temporary folder, check it, and then move it to its final place."""

__all__ = ["MergeOptions", "merge"]

import copy
import resource
import time
from pathlib import Path

import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from dpo.cache import publish
from dpo.errors import ConfigError, ModelError
from dpo.merging.adapted import AdaptedModel
from dpo.merging.check import Comparison, compare
from dpo.merging.folder import write_config
from dpo.merging.options import MergeOptions
from dpo.merging.report import Merge
from dpo.merging.shards import Written, find_shards, merge_shards, why_whole
from dpo.merging.whole import merge_whole
from dpo.models.loading import load_chat_tokenizer
from dpo.models.locating import LocatedModel


def merge(located: LocatedModel, options: MergeOptions, *, progress: bool = False) -> Merge:
    """Merge an adapter into its base. The output folder appears only if the merge and its check succeed.

    Args:
        located: Base, adapter and tokenizer.
        options: The options of the merge.
        progress: Whether to show a progress bar.

    Raises:
        DPOError: if the adapter does not fit the base, a file cannot be read or written, or the check fails.
    """
    options.check()
    done: list[Merge] = []
    try:
        publish(options.output, lambda folder: done.append(build(located, options, folder, progress)), replace=True)
    except OSError as error:
        raise ConfigError(f"--output {options.output}: cannot be written: {error}") from error
    return done[0]


def build(located: LocatedModel, options: MergeOptions, folder: Path, progress: bool) -> Merge:
    start = time.monotonic()
    config = load_config(located, options)
    tokenizer = load_chat_tokenizer(located, trust_remote_code=options.trust_remote_code)
    adapted = AdaptedModel.of(located, copy.deepcopy(config), trust_remote_code=options.trust_remote_code)
    written, reason = write_weights(adapted, located, options, folder, config, progress)
    if options.dtype is not None:
        config.dtype = getattr(torch, options.dtype)
    if adapted.untied():
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False
    write_config(folder, config, located)
    tokenizer.save_pretrained(folder)
    num_layers, num_replaced = adapted.num_lora_layers, adapted.num_replaced
    merging_s, peak = time.monotonic() - start, peak_memory_gib()
    comparison = check(located, options, folder, tokenizer, written) if options.check_prompts else None
    merged = Merge(
        base=options.base,
        adapter=options.adapter,
        num_layers=num_layers,
        num_replaced=num_replaced,
        whole_base_because=reason,
        dtype=written.dtype,
        num_shards=written.num_shards,
        size_gib=sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 2**30,
        comparison=comparison,
        merging_s=merging_s,
        peak_memory_gib=peak,
        peak_memory_with_check_gib=peak_memory_gib(),
    )
    merged.save(folder)
    merged.save_card(folder, options.output)
    return merged


def load_config(located: LocatedModel, options: MergeOptions) -> PretrainedConfig:
    """Read the base's configuration.

    Raises:
        ModelError: if it cannot be read, or the weights are quantized.
    """
    try:
        config = AutoConfig.from_pretrained(
            located.base, revision=located.base_revision, trust_remote_code=options.trust_remote_code
        )
    except (ImportError, OSError, ValueError) as error:
        raise ModelError(f"model {located.base}: transformers cannot read its config.json: {error}") from error
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            f"model {located.base}: its weights are quantized, and an adapter cannot be merged into them.\n"
            "  Pass the model that it was quantized from: --model NAME --other_base."
        )
    return config


def write_weights(
    adapted: AdaptedModel,
    located: LocatedModel,
    options: MergeOptions,
    folder: Path,
    config: PretrainedConfig,
    progress: bool,
) -> tuple[Written, str | None]:
    """Merge shard by shard, or with the whole base in memory if that is not possible.

    Returns:
        What was written, and why the whole base was loaded; None if it was not.
    """
    dtype = getattr(torch, options.dtype) if options.dtype else None
    size = options.max_shard_size
    files = find_shards(located.base, located.base_revision)
    reason = why_whole(adapted, files)
    if files is not None and reason is None:
        return merge_shards(adapted, files, folder, dtype=dtype, max_shard_size=size, progress=progress), None
    written = merge_whole(
        adapted,
        located,
        folder,
        dtype=dtype or config.dtype or torch.float32,
        max_shard_size=size,
        trust_remote_code=options.trust_remote_code,
    )
    return written, reason


def check(
    located: LocatedModel,
    options: MergeOptions,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    written: Written,
) -> Comparison:
    """Compare the merged model with the base with the adapter.

    Raises:
        ModelError: if they differ by more than rounding explains.
    """
    comparison = compare(
        located,
        folder,
        tokenizer,
        num_prompts=options.check_prompts,
        written=written,
        trust_remote_code=options.trust_remote_code,
    )
    if not comparison.agrees():
        raise ModelError(
            "the merged model failed its check: its logits differ from those of the base with the adapter in "
            f"{written.dtype} by {comparison.difference:.1e} of the largest logit; at most {comparison.allowed:.1e} is "
            f"allowed. Nothing was written to {options.output}.\n  Use the base with the adapter, unmerged."
        )
    return comparison


def peak_memory_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
