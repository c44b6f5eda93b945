"""Whether a run that goes on from a checkpoint is the one that wrote it.

A checkpoint counts steps, which are so many rows in a certain order, and brings its optimizer, written as the run was
sharded, with the learning rate it had. Another run would repeat rows and leave rows out, or be told one rate and take
another, and nobody would say so.
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
"""Its key among the callbacks that a checkpoint's state lists."""
ANSWERS = ("chosen_ids", "rejected_ids")
ROWS_AT_ONCE = 1_000


def row_facts(rows: Dataset) -> dict[str, Any]:
    """The same of the rows that are trained on.

    A hash of the answers' token ids, in their order: some templates write the day into the prompt.
    """
    digest = hashlib.blake2b(digest_size=4)
    for batch in rows.select_columns(list(ANSWERS)).with_format("arrow").iter(ROWS_AT_ONCE):
        for ids in (batch.column(name) for name in ANSWERS):
            digest.update(pc.list_value_length(ids).to_numpy())
            digest.update(pc.list_flatten(ids).to_numpy())
    return {"rows": f"{len(rows)} of hash {digest.hexdigest()}"}


def check_same_run(checkpoint: str | None, facts: Mapping[str, Any]) -> None:
    """Refuse to go on from a checkpoint of a run with other facts.

    Args:
        checkpoint: Its folder; None where the run begins.
        facts: Of this run, by what a user calls them.

    Raises:
        ConfigError: naming what it was made with.
    """
    if not checkpoint:
        return
    note = read_object(str(checkpoint), STATE).get("stateful_callbacks", {}).get(NOTE, {})
    noted = note.get("args", {}).get("facts", {})
    for name, now in facts.items():
        if (before := noted.get(name, now)) != now:
            raise ConfigError(
                f"--resume_from_checkpoint {checkpoint}: {name}: {before} when it was made, {now} in this run.\n"
                "  Pass what it was made with. To start from its weights alone, pass it as --model_name_or_path."
            )


class NoteFacts(TrainerCallback):
    """Writes a run's facts into the state of its checkpoints, where check_same_run reads them.

    No ExportableState: where a run goes on from a checkpoint that has none, transformers' _save_checkpoint ends in a
    KeyError.

    Args:
        facts: JSON, by what a user calls it.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.stateful_callbacks[NOTE] = {"args": {"facts": dict(self.facts)}, "attributes": {}}
