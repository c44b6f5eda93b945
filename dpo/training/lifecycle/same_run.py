"""Checks that a run resumes from a checkpoint of the same run.

A checkpoint counts steps, and each step stands for certain rows in a certain order. It also contains the optimizer
state, sharded as in the run that wrote it, and the learning rate. If rows or flags differ, the resumed run would
silently repeat or skip rows, or use another learning rate than its flags name.
"""

__all__ = ["NoteFacts", "check_same_run", "row_facts"]

import hashlib
from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset
from transformers import TrainerCallback

from dpo.errors import ConfigError
from dpo.training.lifecycle.checkpoints import STATE, read_object

NOTE = "NoteFacts"
"""Key of the facts among the callbacks in a checkpoint's trainer state."""
ANSWERS = ("chosen_ids", "rejected_ids")
ROWS_AT_ONCE = 1_000


def row_facts(rows: Dataset) -> dict[str, Any]:
    """The facts about the training rows that must not change when a run resumes: their number and a hash.

    The hash covers the token ids of the answers, in order. It leaves out prompts, because some templates write the
    current date into them.
    """
    digest = hashlib.blake2b(digest_size=4)
    for batch in rows.select_columns(list(ANSWERS)).with_format("arrow").iter(ROWS_AT_ONCE):
        for ids in (batch.column(name) for name in ANSWERS):
            digest.update(pc.list_value_length(ids).to_numpy())
            digest.update(pc.list_flatten(ids).to_numpy())
    return {"rows": f"{len(rows)} of hash {digest.hexdigest()}"}


def check_same_run(checkpoint: str | None, facts: Mapping[str, Any]) -> None:
    """Check that a checkpoint was written by a run with the same facts.

    Args:
        checkpoint: Folder of the checkpoint. None if the run does not resume.
        facts: Facts about this run. The keys are the names that the error shows to the user.

    Raises:
        ConfigError: if a fact differs. The message names the fact and both values.
    """
    if not checkpoint:
        return
    note = read_object(str(checkpoint), STATE).get("stateful_callbacks", {}).get(NOTE, {})
    noted = note.get("args", {}).get("facts", {})
    for name, now in facts.items():
        if (before := noted.get(name, now)) != now:
            raise ConfigError(
                f"--resume_from_checkpoint {checkpoint}: {name}: {before} when the checkpoint was written, {now} in "
                "this run.\n"
                "  Resume with the same value, or start a new run from its weights: pass the checkpoint as "
                "--model_name_or_path."
            )


class NoteFacts(TrainerCallback):
    """Writes a run's facts into the state of its checkpoints, where check_same_run reads them.

    It is not an ExportableState. With one, transformers' _save_checkpoint raises a KeyError if the run resumed from a
    checkpoint that has none.

    Args:
        facts: Facts about this run, as JSON values. The keys are the names that an error shows to the user.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.stateful_callbacks[NOTE] = {"args": {"facts": dict(self.facts)}, "attributes": {}}
