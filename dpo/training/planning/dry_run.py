"""--dry_run: prints what a run would do, without weights or devices, and writes nothing."""

__all__ = ["show_run"]

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from dpo.data.config import DataConfig
from dpo.data.rendering.tokenization import Tokenizer, load_tokenizer
from dpo.data.sample import NUM_ROWS, Sample, read_sample
from dpo.engine.planning import plan_micro_batches
from dpo.errors import ModelError, TokenizerError
from dpo.folders import RESULTS, similar_path
from dpo.hub import is_hub_id, reach_hub
from dpo.training.planning.plan import Before, Plan
from dpo.training.planning.size import ModelSize, holdings, measure
from dpo.training.policy.lora import check_added_tokens
from dpo.training.reports.summary import describe
from dpo.training.settings.flags import parse_flags
from dpo.training.settings.resolving import TrainingConfig
from dpo.training.trainers.steps import micro_batches_for

OVER_ALL_ROWS = (
    "drop_duplicates",
    "drop_conflicts",
    "drop_leaked_prompts",
    "balance_length",
    "max_pairs_per_prompt",
    "weights",
)
"""Data flags that compare rows with each other. They need all rows, so a sample cannot show their effect."""


def show_run(argv: Sequence[str], *, before: Before = ()) -> None:
    """Print what one run of main.py would do.

    Args:
        argv: The run's command line.
        before: The stages before the run. They may produce its model and its rows.

    Raises:
        DPOError: if the flags are wrong, or the model, the tokenizer or a source cannot be used.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)  # as in a real run
    data, flags = parse_flags(list(argv))
    output_dir = Path(str(flags["output_dir"]))
    is_finished = (output_dir / RESULTS).exists() and not flags["overwrite_output_dir"]
    config = Plan(before, **flags | ({"overwrite_output_dir": True} if is_finished else {}))
    notes = config.notes
    if config.num_devices is not None and not torch.accelerator.is_available():
        notes.append("no accelerator found: precision and attention are planned for a CPU, unless flags set them")
    tokenizer, size = tokenizer_and_size(config)
    generated = [str(stage.output) for stage, _ in before if stage.kind == "generate"]
    sample = read_sample(data, tokenizer, not_there_yet=generated)
    if not config.has_stand_in:  # an earlier stage may add these tokens to the model
        check_added_tokens(config, sample.added_tokens)
    sections = [
        describe_model(config, size),
        "\n".join(dict.fromkeys(notes + sample.notes)),
        describe(config),
        describe_rows(data, sample),
        describe_steps(data, config, sample),
        describe_memory(config, size),
        f"output_dir: {output_dir}"
        + (" already contains a finished run, which would not be replaced" if is_finished else ""),
    ]
    print("\n\n".join(section for section in sections if section), flush=True)


def tokenizer_and_size(config: Plan) -> tuple[Tokenizer | None, ModelSize | None]:
    """Load the model's tokenizer and count its parameters.

    Returns:
        The tokenizer and the size. Both are None if the model is on the Hub and the Hub cannot be reached.

    Raises:
        ModelError, TokenizerError: if the model can be read, but cannot be used.
    """
    located = config.located
    is_there = not (is_hub_id(located.base) or is_hub_id(located.tokenizer)) or reach_hub()
    try:
        tokenizer = load_tokenizer(
            located.tokenizer, revision=located.tokenizer_revision, trust_remote_code=config.trust_remote_code
        )
        return tokenizer, measure(located, config, adapter_by=config.start.adapter_by)
    except (ModelError, TokenizerError):
        if is_there:
            raise
        config.notes.append(
            f"stand-in: {located.base} cannot be downloaded; four characters count as one token, and the model size is "
            f"unknown.{similar_path(located.base)}"
        )
        return None, None


def describe_model(config: TrainingConfig, size: ModelSize | None) -> str:
    if size is None:
        return f"model: {config.model_name_or_path}"
    adapter = f"; training an adapter with {size.adapter:,} parameters" if size.adapter else ""
    return f"model: {config.model_name_or_path}, {size.architecture} with {size.parameters:,} parameters{adapter}"


def describe_rows(data: DataConfig, sample: Sample) -> str:
    """The data report of the sample, and the lengths of its pairs."""
    lines = [sample.report.table()]
    if data.prepared is None:
        lines.insert(0, f"The first {NUM_ROWS} rows of each source:")
    if left := [f"--{name}" for name in OVER_ALL_ROWS if getattr(data, name) != DataConfig.model_fields[name].default]:
        lines.append(f"not applied here, because all rows are needed: {', '.join(left)}")
    if not sample.lengths:
        return "\n".join([*lines, "warning: none of these rows is kept"])
    columns = {
        "prompt": [prompt for prompt, _, _ in sample.lengths],
        "chosen": [chosen for _, chosen, _ in sample.lengths],
        "rejected": [rejected for _, _, rejected in sample.lengths],
        "whole": [prompt + max(chosen, rejected) for prompt, chosen, rejected in sample.lengths],
    }
    lines += ["", f"{'tokens':<10}{'median':>8}{'95 %':>8}{'max':>8}"]
    lines += [
        f"{part:<10}" + "".join(f"{at_share(tokens, share):>8,}" for share in (0.5, 0.95, 1))
        for part, tokens in columns.items()
        if any(tokens)
    ]
    return "\n".join(lines)


def at_share(numbers: Sequence[int], share: float) -> int:
    """The quantile of numbers, without interpolation. The share 0.5 of 1, 2, 3 is 2."""
    return sorted(numbers)[math.ceil(share * len(numbers)) - 1]


def describe_steps(data: DataConfig, config: TrainingConfig, sample: Sample) -> str:
    """Tokens per step, balance of the micro-batches, and number of steps."""
    if not sample.lengths:
        return ""
    unit = "answers" if data.stage == "sft" else "pairs"
    global_batch_size, devices = int(config.global_batch_size or 1), config.world_size
    chosen = [sample.lengths[number % len(sample.lengths)] for number in range(global_batch_size)]
    shared = [sum(parts) for parts in chosen]
    unshared = [sum(parts) + parts[0] * (parts[2] > 0) for parts in chosen]
    without = f" with shared prompts, {sum(unshared):,} without sharing" if unshared != shared else ""
    lines = [f"optimizer step: about {sum(shared):,} tokens{without}"]
    if config.engine == "packed":
        number = micro_batches_for(config, shared, [range(global_batch_size)], lambda _: "a pair of the sample")
        rows = plan_micro_batches(range(global_batch_size), shared, world_size=devices, num_micro_batches=number)
        tokens = [[sum(shared[pair] for pair in batch.pairs) for batch in row] for row in rows]
        longest = sum(map(max, tokens))
        lines.append(
            f"micro-batches per step: {number} on each of {devices} device(s), at most {max(map(max, tokens)):,} "
            f"tokens, {sum(shared) / (devices * longest):.0%} balanced"
        )
    if sample.num_pairs is None:
        lines.append(
            f"run: {config.max_steps} steps"
            if config.max_steps > 0
            else f"run: {config.num_train_epochs:g} epoch(s); the number of rows is unknown"
        )
        return "\n".join(lines)
    epoch = max(1, math.ceil(sample.num_pairs / global_batch_size))
    steps = config.max_steps if config.max_steps > 0 else math.ceil(config.num_train_epochs * epoch)
    lines.append(f"epoch: about {sample.num_pairs:,.0f} {unit}, {epoch:,} steps; run: {steps:,} steps")
    return "\n".join(lines)


def describe_memory(config: TrainingConfig, size: ModelSize | None) -> str:
    if size is None:
        return ""
    held = holdings(size, config, devices=config.world_size)
    on_device = sum(holding.gib for holding in held if not holding.in_host_memory)
    stage = config.deepspeed["zero_optimization"]["stage"] if isinstance(config.deepspeed, dict) else None
    sharding = "without DeepSpeed" if stage is None else f"with ZeRO-{stage}"
    return "\n".join(
        [
            f"memory per device, {sharding}, {config.world_size} device(s):",
            *(f"  {holding}" for holding in held),
            f"  {'total':<10}{on_device:9.2f} GiB, plus activations, buffers and fragmentation",
        ]
    )
