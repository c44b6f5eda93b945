"""The main job: flags in; a model, its tokenizer and an account of the run out."""

__all__ = ["run"]

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dpo.data.config import DataConfig
from dpo.data.pipeline import PreparedData, prepare
from dpo.data.tokenization import load_tokenizer
from dpo.training.config import TrainingConfig, parse_flags, resolved_flags
from dpo.training.distributed import finish, is_main_process, local_main_first, set_up
from dpo.training.embedded import EMBEDDED, embedded_model
from dpo.training.model import load_model, load_tokenizer_for, stop_at
from dpo.training.sampling import SampleAnswers
from dpo.training.trainer import PreferenceTrainer

REPORT = "data_report.json"
RESULTS = "train_results.json"
"""Written last: a folder that has it holds a finished run."""


def run(argv: list[str]) -> None:
    """Prepare the data, train, evaluate and save, as the command line says.

    Raises:
        DPOError: a mistake the user can mend, found before anything is written where that is possible.
    """
    data, flags = parse_flags(argv)
    set_up(deepspeed=bool(flags["deepspeed"]))
    try:
        train(data, TrainingConfig(**flags))
    finally:
        finish()


def train(data: DataConfig, config: TrainingConfig) -> None:
    model, prepared = prepare_inputs(data, config)
    config.for_data(has_eval=prepared.eval is not None)
    say(f"\n{prepared.report.table()}\n\n{describe(config)}\n")

    tokenizer = load_tokenizer_for(model, config, prepared)
    policy = load_model(model, config, tokenizer, prepared.added_tokens)
    reference = load_model(model, config, tokenizer, prepared.added_tokens)
    end_of_turn_id = tokenizer.convert_tokens_to_ids(prepared.end_of_turn)
    stop_at(policy, end_of_turn_id)
    samples = SampleAnswers(
        list((prepared.eval or prepared.train).select(range(min(config.sample_prompts, num_pairs(prepared))))),
        tokenizer,
        end_of_turn_id=end_of_turn_id,
        max_new_tokens=config.sample_max_new_tokens,
    )
    start_output(config, prepared)
    trainer = PreferenceTrainer(
        model=policy,
        ref_model=reference,
        args=config,
        train_dataset=prepared.train,
        eval_dataset=prepared.eval,
        processing_class=tokenizer,
        callbacks=[samples] if config.sample_prompts else [],
    )
    result = trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    evaluate_at_end(trainer)
    save(trainer, data, config, result.metrics, samples)
    say(summary(trainer, config, samples))


def prepare_inputs(data: DataConfig, config: TrainingConfig) -> tuple[str, PreparedData]:
    """The model's folder or Hub id, and the pairs as token ids.

    The first process of each machine does the work; the others find it done.
    """
    model = str(config.model_name_or_path)
    with local_main_first():
        if model == EMBEDDED:
            model = str(embedded_model())
        tokenizer = load_tokenizer(model, revision=config.model_revision, trust_remote_code=config.trust_remote_code)
        return model, prepare(data, tokenizer, progress=is_main_process())


def num_pairs(prepared: PreparedData) -> int:
    return len(prepared.eval or prepared.train)


def start_output(config: TrainingConfig, prepared: PreparedData) -> None:
    """Make output_dir and put the account of the data there; what a finished run left is removed first."""
    if not is_main_process():
        return
    output_dir = Path(str(config.output_dir))
    output_dir.mkdir(parents=True, exist_ok=True)
    if (output_dir / RESULTS).exists():
        (output_dir / RESULTS).unlink()
        for checkpoint in output_dir.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    shutil.copy(prepared.folder / REPORT, output_dir / REPORT)


def evaluate_at_end(trainer: PreferenceTrainer) -> None:
    """Evaluate the final weights, unless the last step did."""
    if trainer.eval_dataset is None:
        return
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    if not evaluations or evaluations[-1]["step"] != trainer.state.global_step:
        trainer.evaluate()


def save(
    trainer: PreferenceTrainer,
    data: DataConfig,
    config: TrainingConfig,
    metrics: Mapping[str, float],
    samples: SampleAnswers,
) -> None:
    """Write what a run leaves, its results last."""
    trainer.save_model()  # every rank: at ZeRO-3 the weights are gathered
    trainer.save_state()
    if not is_main_process():
        return
    output_dir = Path(str(config.output_dir))
    (output_dir / "resolved_config.yaml").write_text(yaml.safe_dump(resolved_flags(data, config), sort_keys=False))
    if samples.after:
        samples.save(output_dir / "sample_answers.json")
    before, after = first_and_last_evaluation(trainer)
    if after:
        write_json(output_dir / "eval_results.json", {"before": before, "after": after})
    write_json(output_dir / RESULTS, metrics)


def write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def first_and_last_evaluation(trainer: PreferenceTrainer) -> tuple[dict[str, float], dict[str, float]]:
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    return (evaluations[0], evaluations[-1]) if evaluations else ({}, {})


def describe(config: TrainingConfig) -> str:
    """The few numbers that a user would want to see before hours of training."""
    stage = config.deepspeed["zero_optimization"]["stage"] if isinstance(config.deepspeed, dict) else "none"
    return "\n".join(
        [
            f"global batch: {config.global_batch_size} pairs = {config.per_device_train_batch_size} at once x "
            f"{config.world_size} device(s) x {config.gradient_accumulation_steps} accumulation step(s)",
            f"precision: {str(config.dtype).removeprefix('torch.')} weights"
            + (", bfloat16 compute" if config.bf16 else ", float16 compute" if config.fp16 else "")
            + f"; device: {config.device}; ZeRO stage: {stage}",
            f"beta {config.beta}, learning rate {config.learning_rate}, {config.num_train_epochs:g} epoch(s)",
        ]
    )


def summary(trainer: PreferenceTrainer, config: TrainingConfig, samples: SampleAnswers) -> str:
    """What the run did, for the terminal."""
    lines = []
    before, after = first_and_last_evaluation(trainer)
    if after:
        lines += ["", f"{'held-out pairs':<18}{'before':>9}{'after':>9}"]
        for label, key in (
            ("reward accuracy", "eval_rewards/accuracies"),
            ("reward margin", "eval_rewards/margins"),
            ("loss", "eval_loss"),
        ):
            lines.append(f"{label:<18}{before[key]:>9.4f}{after[key]:>9.4f}")
    if samples.after:
        lines += ["", samples.table()]
    output_dir = Path(str(config.output_dir))
    files = [REPORT, RESULTS, "eval_results.json", "sample_answers.json", "trainer_state.json", "resolved_config.yaml"]
    reports = [file for file in files if (output_dir / file).exists()]
    lines += ["", f"model:   {output_dir}", f"reports: {', '.join(reports)}, in the same folder"]
    return "\n".join(lines)


def say(text: str) -> None:
    if is_main_process():
        print(text, flush=True)
