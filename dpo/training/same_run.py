"""Whether a run that goes on from a checkpoint is the one that wrote it.

A checkpoint counts steps, which are so many rows in a certain order, and brings its optimizer, written as the run was
sharded, with the learning rate it had. Another run would repeat rows and leave rows out, or be told one rate and take
another, and nobody would say so.
"""

__all__ = ["NoteFacts", "check_same_run", "flag_facts", "row_facts"]

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
from datasets import Dataset
from transformers import TrainerCallback

from dpo.errors import ConfigError
from dpo.training.distributed import is_fsdp
from dpo.training.resuming import STATE, read_object

if TYPE_CHECKING:
    from dpo.training.config import TrainingConfig

FLAGS = (
    *("stage", "global_batch_size", "seed", "data_seed", "train_sampling_strategy", "dataloader_drop_last"),
    *("optim", "learning_rate", "weight_decay"),
)
NOTE = "NoteFacts"
"""Its key among the callbacks that a checkpoint's state lists."""
ANSWERS = ("chosen_ids", "rejected_ids")
ROWS_AT_ONCE = 1_000


def flag_facts(config: "TrainingConfig") -> dict[str, Any]:
    """What runs of one and the same checkpoints have in common, as far as flags say it, by what a user calls it."""
    values = {f"--{name}": getattr(config, name) for name in FLAGS}
    return {name: getattr(value, "value", value) for name, value in values.items()} | {"sharding": sharding_of(config)}


def sharding_of(config: "TrainingConfig") -> str:
    """How a checkpoint's optimizer is written. DeepSpeed reads ZeRO-1's at ZeRO-2 and back, on as many devices."""
    if is_fsdp(config):
        return "FSDP"
    if not isinstance(config.deepspeed, dict):
        return "none"
    stage = config.deepspeed["zero_optimization"]["stage"]
    if stage == 0:
        return "DeepSpeed's without ZeRO"
    return f"{'ZeRO-3' if stage == 3 else 'ZeRO-1 or 2'} on {config.world_size} device(s)"


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


def check_same_run(config: "TrainingConfig", facts: Mapping[str, Any]) -> None:
    """Refuse to go on from a checkpoint of a run with other facts.

    Raises:
        ConfigError: naming what it was made with.
    """
    checkpoint = config.resume_from_checkpoint
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
