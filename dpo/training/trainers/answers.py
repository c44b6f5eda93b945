"""trl.SFTTrainer on our token ids: the padded engine for answers, and the oracle of the packed one."""

__all__ = ["AnswerTrainer"]

import dataclasses
from typing import Any

from torch import nn
from trl import SFTConfig, SFTTrainer

from dpo.training.policy.lora import disable_dropout
from dpo.training.settings.resolving import TrainingConfig
from dpo.training.trainers.padded import TrlTrainer


class AnswerTrainer(TrlTrainer, SFTTrainer):
    """trl.SFTTrainer, given answers that are tokenized, split and filtered already.

    Overridden, beside what TrlTrainer overrides: `_prepare_dataset`, which would render and tokenize once more.

    Args:
        model: The model, or one with an adapter.
        args: The run's flags, of which the trainer reads those that SFTConfig has too.
        options: Of TrlTrainer and trl.SFTTrainer.
    """

    def __init__(self, *, model: nn.Module, args: TrainingConfig, **options: Any) -> None:
        if args.disable_dropout:  # as TRL's trainer for pairs does, and so the packed engine
            disable_dropout(model)
        super().__init__(model=model, args=sft_config(args), **options)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset.select_columns(["prompt_ids", "chosen_ids"]).with_transform(sequences)


def sequences(rows: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
    """Prompts and their answers in one, as SFTTrainer's collator takes them; -100 labels what is not trained on."""
    both = list(zip(rows["prompt_ids"], rows["chosen_ids"], strict=True))
    return {
        "input_ids": [[*prompt, *answer] for prompt, answer in both],
        "labels": [[-100] * len(prompt) + list(answer) for prompt, answer in both],
    }


def sft_config(config: TrainingConfig) -> SFTConfig:
    """A run's flags as SFTTrainer takes them. Nothing is truncated: the length filter was here before."""
    shared = {f.name for f in dataclasses.fields(TrainingConfig)} - {"loss_type", "max_length", "remove_unused_columns"}
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(SFTConfig) if f.init and f.name in shared}
    return SFTConfig(**values, max_length=None, completion_only_loss=True, remove_unused_columns=False)
