"""The padded engine for pairs: trl.DPOTrainer on our token ids. The packed engine is tested against it."""

__all__ = ["PreferenceTrainer"]

from typing import Any

from trl import DPOTrainer

from dpo.training.trainers.base import RunTrainer


class PreferenceTrainer(RunTrainer, DPOTrainer):
    """trl.DPOTrainer, given pairs that are tokenized, split and filtered already: the padded engine.

    Overridden, beside what RunTrainer overrides: `_prepare_dataset`, which would render and tokenize once more.
    """

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"])
