"""The padded engine for answers: trl.SFTTrainer on our token ids. The packed engine is tested against it."""

__all__ = ["AnswerTrainer"]

import dataclasses
from typing import Any

from torch import nn
from trl import SFTConfig, SFTTrainer

from dpo.training.policy.lora import disable_dropout
from dpo.training.settings.resolving import TrainingConfig
from dpo.training.trainers.padded import TrlTrainer


class AnswerTrainer(TrlTrainer, SFTTrainer):
    """trl.SFTTrainer on answers that are already tokenized, split and filtered.

    Overridden, beside what TrlTrainer overrides: `_prepare_dataset`, which would render and tokenize again.

    Args:
        model: The model, with or without an adapter.
        args: The run's settings. The trainer reads those that SFTConfig has too.
        options: Options of TrlTrainer and trl.SFTTrainer.
    """

    def __init__(self, *, model: nn.Module, args: TrainingConfig, **options: Any) -> None:
        if args.disable_dropout:  # as TRL's trainer for pairs and the packed engine do
            disable_dropout(model)
        super().__init__(model=model, args=sft_config(args), **options)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset.select_columns(["prompt_ids", "chosen_ids"]).with_transform(sequences)


def sequences(rows: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
    """Join prompts and answers as SFTTrainer's collator expects them. Prompt tokens have the label -100."""
    both = list(zip(rows["prompt_ids"], rows["chosen_ids"], strict=True))
    return {
        "input_ids": [[*prompt, *answer] for prompt, answer in both],
        "labels": [[-100] * len(prompt) + list(answer) for prompt, answer in both],
    }


def sft_config(config: TrainingConfig) -> SFTConfig:
    """A run's settings as an SFTConfig. Nothing is truncated, since the length filter has already run."""
    shared = {f.name for f in dataclasses.fields(TrainingConfig)} - {"loss_type", "max_length", "remove_unused_columns"}
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(SFTConfig) if f.init and f.name in shared}
    return SFTConfig(**values, max_length=None, completion_only_loss=True, remove_unused_columns=False)
