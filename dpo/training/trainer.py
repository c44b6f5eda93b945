"""TRL's trainer on our token ids."""

__all__ = ["PreferenceTrainer"]

from typing import Any

from trl import DPOTrainer


class PreferenceTrainer(DPOTrainer):
    """trl.DPOTrainer, given pairs that are tokenized, split and filtered already.

    Overridden: `_prepare_dataset`, which would render and tokenize once more.
    """

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"])
