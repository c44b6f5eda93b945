"""One training run, from the command line to a saved model, its tokenizer and its reports."""

__all__ = ["run"]

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from transformers.trainer_utils import TrainOutput

from dpo.data.config import DataConfig
from dpo.data.pipeline import PreparedData, open_prepared, prepare
from dpo.data.rendering.tokenization import load_tokenizer
from dpo.errors import ConfigError, ModelError
from dpo.folders import RESULTS, WEIGHTS
from dpo.training.distributed import finish, is_main_process, local_main_first, say, set_up
from dpo.training.lifecycle.same_run import NoteFacts, check_same_run, row_facts
from dpo.training.lifecycle.starting import StartOutput
from dpo.training.policy.lora import check_added_tokens
from dpo.training.policy.model import load_model, load_tokenizer_for, stop_at
from dpo.training.reports.sampling import SampleAnswers
from dpo.training.reports.summary import describe, evaluations, summarize
from dpo.training.settings.flags import parse_flags, resolved_flags
from dpo.training.settings.resolving import TrainingConfig
from dpo.training.settings.resuming import flag_facts
from dpo.training.trainers.base import RunTrainer
from dpo.training.trainers.building import build_trainer, explain_refusals


def run(argv: list[str]) -> None:
    """Prepare the data, train, evaluate and save.

    Args:
        argv: The command line without the program's name.

    Raises:
        DPOError: if the user has made a mistake. Most mistakes are found before anything is written.
    """
    data, flags = parse_flags(argv)
    set_up(deepspeed=bool(flags["deepspeed"]), spread=bool(flags["device_map"]))
    try:
        train(data, TrainingConfig(**flags))
    finally:
        finish()


def train(data: DataConfig, config: TrainingConfig) -> None:
    located, prepared = config.located, local_main_first(lambda: prepare_rows(data, config))
    facts = row_facts(prepared.train)
    if not config.ignore_data_skip:
        check_same_run(config.resume_from_checkpoint, facts)
    say(f"\n{prepared.report.table()}\n\n{describe(config)}\n")

    tokenizer = load_tokenizer_for(located, config, prepared)
    policy = load_model(located, config, tokenizer, prepared.added_tokens)
    end_of_turn_id = tokenizer.convert_tokens_to_ids(prepared.end_of_turn)
    stop_at(policy, end_of_turn_id)
    held_out = prepared.eval or prepared.train
    with explain_refusals(policy):
        trainer = build_trainer(located, config, tokenizer, prepared, policy)
    samples = SampleAnswers(
        list(held_out.select(range(min(config.sample_prompts, len(held_out))))),
        tokenizer,
        end_of_turn_id=end_of_turn_id,
        max_new_tokens=config.sample_max_new_tokens,
        attention=trainer.ordinary_attention,
    )
    if config.sample_prompts:
        trainer.add_callback(samples)
    trainer.add_callback(NoteFacts(flag_facts(config) | facts))
    trainer.add_callback(StartOutput(config, prepared, overwrite=config.overwrite_output_dir))
    result = train_or_explain(trainer, config)
    evaluate_at_end(trainer)
    save(trainer, data, config, result.metrics | trainer.totals(), samples)
    say(summarize(config, evaluations(trainer.state.log_history), samples))


def train_or_explain(trainer: RunTrainer, config: TrainingConfig) -> TrainOutput:
    """Train, and explain the errors and warnings that need the number of steps."""
    try:
        result = trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    except ValueError as error:
        if "DeepSpeed config values" not in str(error):
            raise
        raise ConfigError(f"--deepspeed {config.deepspeed_file} contradicts the flags: {error}") from error
    if trainer.state.global_step == 1 and config.get_warmup_steps(1):
        say("\nwarning: the model is unchanged, because the only step was a warm-up step with a learning rate of 0")
    return result


def prepare_rows(data: DataConfig, config: TrainingConfig) -> PreparedData:
    """Prepare the rows as token ids, or open the prepared ones.

    Raises:
        ConfigError: if the template needs new tokens and the run trains an adapter, which does not train embeddings.
    """
    located = config.located
    tokenizer = load_tokenizer(
        located.tokenizer, revision=located.tokenizer_revision, trust_remote_code=config.trust_remote_code
    )
    if data.prepared is not None:
        prepared = open_prepared(data.prepared_folder, tokenizer, stage=data.stage)
    else:
        prepared = prepare(data, tokenizer, progress=is_main_process())
    check_added_tokens(config, prepared.added_tokens)
    return prepared


def evaluate_at_end(trainer: RunTrainer) -> None:
    """Evaluate the final weights, unless the last step was followed by an evaluation."""
    if trainer.eval_dataset is None:
        return
    last = evaluations(trainer.state.log_history).get("after")
    if last is None or last["step"] != trainer.state.global_step:
        trainer.evaluate()


def save(
    trainer: RunTrainer,
    data: DataConfig,
    config: TrainingConfig,
    metrics: Mapping[str, float],
    samples: SampleAnswers,
) -> None:
    """Save the model and the reports. The results come last, because they mark a finished run.

    Args:
        trainer: The trainer, after training and evaluation.
        data: The flags of the data.
        config: The run's flags.
        metrics: The results of training.
        samples: The sample answers.

    Raises:
        ModelError: if no weights were written.
    """
    trainer.save_model()  # on every rank, because ZeRO-3 gathers the weights
    trainer.save_state()
    if not is_main_process():
        return
    output_dir = Path(str(config.output_dir))
    if not any(file for pattern in WEIGHTS for file in output_dir.glob(pattern)):
        raise ModelError(
            f"--output_dir {output_dir} contains no weights, because the launcher's sharding did not gather them.\n"
            "  Set the launcher to save a full state dict, or pass --deepspeed ds_configs/zero3.json."
        )
    flags = yaml.safe_dump(resolved_flags(data, config), sort_keys=False, allow_unicode=True)
    (output_dir / "resolved_config.yaml").write_text(flags, encoding="utf-8")
    if samples.after:
        samples.save(output_dir / "sample_answers.json")
    if evaluated := evaluations(trainer.state.log_history):
        write_json(output_dir / "eval_results.json", evaluated)
    trainer.create_model_card()
    write_json(output_dir / RESULTS, metrics)


def write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
