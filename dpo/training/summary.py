"""What a run says of itself, on the terminal and in output_dir."""

__all__ = ["describe", "evaluations", "summarize"]

from pathlib import Path
from typing import Any

from dpo.training.config import TrainingConfig
from dpo.training.sampling import SampleAnswers

MEASURES = {
    "reward accuracy": "eval_rewards/accuracies",
    "reward margin": "eval_rewards/margins",
    "loss": "eval_loss",
}


def describe(config: TrainingConfig) -> str:
    """The few numbers that a user would want to see before hours of training."""
    stage = config.deepspeed["zero_optimization"]["stage"] if isinstance(config.deepspeed, dict) else "none"
    compute = ", bfloat16 compute" if config.bf16 else ", float16 compute" if config.fp16 else ""
    return (
        f"global batch: {config.global_batch_size} pairs = {config.per_device_train_batch_size} at once x "
        f"{config.world_size} device(s) x {config.gradient_accumulation_steps} accumulation step(s)\n"
        f"precision: {str(config.dtype).removeprefix('torch.')} weights{compute}; device: {config.device}; "
        f"ZeRO stage: {stage}\n"
        f"beta {config.beta}, learning rate {config.learning_rate}, "
        + (f"{config.max_steps} steps" if config.max_steps > 0 else f"{config.num_train_epochs:g} epoch(s)")
    )


def evaluations(log_history: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The evaluation before the first step and the last one, as far as they took place."""
    entries = [entry for entry in log_history if "eval_loss" in entry]
    before = {"before": entries[0]} if entries and entries[0]["step"] == 0 else {}
    return before | ({"after": entries[-1]} if entries and entries[-1]["step"] > 0 else {})


def summarize(config: TrainingConfig, evaluated: dict[str, dict[str, Any]], samples: SampleAnswers) -> str:
    """What the run did: held-out measures before and after, sample answers, and where everything lies."""
    lines = []
    if evaluated:
        lines += ["", f"{'held-out pairs':<18}" + "".join(f"{when:>9}" for when in evaluated)]
        lines += [
            f"{label:<18}" + "".join(f"{entry[key]:>9.4f}" for entry in evaluated.values())
            for label, key in MEASURES.items()
        ]
    if samples.after:
        lines += ["", samples.table()]
    output_dir = Path(str(config.output_dir))
    reports = sorted(file.name for file in output_dir.iterdir() if file.name in REPORTS)
    lines += ["", f"model:   {output_dir}", f"reports: {', '.join(reports)}, in the same folder"]
    return "\n".join(lines)


REPORTS = (
    "data_report.json",
    "eval_results.json",
    "manifest.json",
    "resolved_config.yaml",
    "sample_answers.json",
    "train_results.json",
    "trainer_state.json",
)
"""Every report that a run may leave."""
