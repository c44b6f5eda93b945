"""The tables and summaries that a run prints."""

__all__ = ["describe", "describe_loss", "evaluations", "measures_table", "summarize"]

import dataclasses
import math
from pathlib import Path
from typing import Any

from dpo.folders import REPORTS
from dpo.training.distributed import is_fsdp
from dpo.training.reports.sampling import SampleAnswers
from dpo.training.settings.objective_checks import LOSS_OPTIONS
from dpo.training.settings.resolving import TrainingConfig

MEASURES = {
    "dpo": {
        "reward accuracy": "eval_rewards/accuracies",
        "reward margin": "eval_rewards/margins",
        "loss": "eval_loss",
    },
    "sft": {"loss, nats/token": "eval_loss", "perplexity": "perplexity"},
}
"""Measures of the held-out rows by stage: label and key in the log."""
SHOWN_AS_0 = 5e-5
"""Margins smaller than this are printed as 0.0000."""


def describe(config: TrainingConfig) -> str:
    """Describe the run before training begins: batch size, precision, devices, loss and length."""
    stage = config.deepspeed["zero_optimization"]["stage"] if isinstance(config.deepspeed, dict) else "none"
    sharding = "FSDP" if is_fsdp(config) else f"ZeRO stage: {stage}"
    compute = ", bfloat16 compute" if config.bf16 else ", float16 compute" if config.fp16 else ""
    rows = "answers" if config.stage == "sft" else "pairs"
    return (
        f"global batch size: {config.global_batch_size} {rows} = {config.per_device_train_batch_size} per device x "
        f"{config.world_size} device(s) x {config.gradient_accumulation_steps} accumulation step(s)\n"
        f"precision: {str(config.dtype).removeprefix('torch.')} weights{compute}; device: {config.device}; "
        f"{sharding}\n"
        f"loss: {describe_loss(config)}\n"
        f"learning rate: {config.learning_rate}; length: "
        + (f"{config.max_steps} steps" if config.max_steps > 0 else f"{config.num_train_epochs:g} epoch(s)")
    )


def describe_loss(config: TrainingConfig) -> str:
    """The loss terms, beta if one of them reads it, and every option that is not at its default."""
    if config.stage == "sft":
        return "negative log-probability of the answers, averaged over their tokens"
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    options = (*LOSS_OPTIONS, "ld_alpha", "use_weighting", "weight_by_score", "reference_free")
    changed = [f"{name} {getattr(config, name)}" for name in options if getattr(config, name) != defaults[name]]
    beta = [] if config.loss_type == ["sft"] else [f"beta {config.beta:g}"]
    return ", ".join([" + ".join(config.loss or []), *beta, *changed])


def evaluations(log_history: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The evaluations before the first step ("before") and at the end ("after"), without those that did not happen."""
    entries = [entry for entry in log_history if "eval_loss" in entry]
    before = {"before": entries[0]} if entries and entries[0]["step"] == 0 else {}
    return before | ({"after": entries[-1]} if entries and entries[-1]["step"] > 0 else {})


def measures_table(config: TrainingConfig, evaluated: dict[str, dict[str, Any]]) -> list[list[str]]:
    """The measures of the held-out rows as a table of cells. The first row is the header."""
    table = [["held-out answers" if config.stage == "sft" else "held-out pairs", *evaluated]]
    for label, key in MEASURES[config.stage].items():
        values = [entry | {"perplexity": math.exp(min(entry["eval_loss"], 700))} for entry in evaluated.values()]
        table.append([label, *(f"{value[key]:.4f}" for value in values)])
    return table


def summarize(config: TrainingConfig, evaluated: dict[str, dict[str, Any]], samples: SampleAnswers) -> str:
    """Summarize a finished run: measures and sample answers before and after training, and the files it wrote."""
    lines = []
    if evaluated:
        header, *rows = measures_table(config, evaluated)
        width = max(9, *(len(value) + 2 for row in rows for value in row[1:]))
        lines += ["", f"{header[0]:<18}" + "".join(f"{when:>{width}}" for when in header[1:])]
        lines += [f"{row[0]:<18}" + "".join(f"{value:>{width}}" for value in row[1:]) for row in rows]
    if abs(evaluated.get("before", {}).get(MEASURES["dpo"]["reward margin"], 1)) < SHOWN_AS_0:
        lines += [
            "Before the first step, policy and reference model are identical: margins are 0 up to rounding, and the "
            "accuracy has no meaning."
        ]
    if samples.after:
        lines += ["", samples.table()]
    output_dir = Path(str(config.output_dir))
    reports = sorted(file.name for file in output_dir.iterdir() if file.name in REPORTS)
    lines += ["", f"model:   {output_dir}", f"reports: {', '.join(reports)} (in the same folder)"]
    return "\n".join(lines)
