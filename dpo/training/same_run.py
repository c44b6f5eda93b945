"""Whether a run goes on with what its checkpoint was made with, and has steps left to take."""

__all__ = ["NoteFacts", "check_same_run", "check_steps_left", "facts_of"]

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset
from transformers import TrainerCallback

from dpo.errors import ConfigError
from dpo.folders import RESULTS
from dpo.training.config import TrainingConfig
from dpo.training.distributed import is_fsdp, say
from dpo.training.pack_loading import PARTS
from dpo.training.resuming import read_object
from dpo.training.steps import num_steps
from dpo.training.trainer import EpochOrder

STATE = "trainer_state.json"
NOTE = "NoteFacts"
"""Its key among the callbacks that a checkpoint's state lists."""
ROWS_AT_ONCE = 1_000


def facts_of(config: TrainingConfig, rows: Dataset) -> dict[str, Any]:
    """What a run must share with one that goes on from its checkpoints, by what a user calls it.

    A checkpoint is a number of steps: of that many rows in that order. Its optimizer is written as the run was sharded.

    Args:
        config: The run's flags.
        rows: What is trained on.
    """
    order = EpochOrder.of(config, len(rows))
    return {
        "--stage": config.stage,
        "--global_batch_size": config.global_batch_size,
        "order of the rows": f"shuffled with seed {order.seed}" if order.shuffle else "as they come",
        "rows": f"{len(rows)} of hash {rows_hash(rows)}",
        "sharding": sharding_of(config),
    }


def rows_hash(rows: Dataset) -> str:
    """A short hash of all token ids, in their order."""
    digest = hashlib.blake2b(digest_size=4)
    for batch in rows.select_columns(list(PARTS)).with_format("arrow").iter(ROWS_AT_ONCE):
        for ids in (batch.column(part) for part in PARTS):
            digest.update(pc.list_value_length(ids).to_numpy())
            digest.update(pc.list_flatten(ids).to_numpy())
    return digest.hexdigest()


def sharding_of(config: TrainingConfig) -> str:
    """How a checkpoint's optimizer is written. DeepSpeed reads ZeRO-1's at ZeRO-2 and back, on as many devices."""
    if is_fsdp(config):
        return "FSDP"
    if not isinstance(config.deepspeed, dict):
        return "none"
    stage = config.deepspeed["zero_optimization"]["stage"]
    return f"{'ZeRO-1 or 2' if stage in (1, 2) else f'ZeRO-{stage}'} on {config.world_size} device(s)"


def check_same_run(config: TrainingConfig, facts: Mapping[str, Any]) -> None:
    """Refuse to go on from a checkpoint of a run that differs.

    Raises:
        ConfigError: naming what it was made with.
    """
    checkpoint = config.resume_from_checkpoint
    if not checkpoint:
        return
    noted = read_object(str(checkpoint), STATE).get("stateful_callbacks", {}).get(NOTE, {}).get("args", {})
    for name, now in facts.items():
        if (before := noted.get(name, now)) != now:
            raise ConfigError(
                f"--resume_from_checkpoint {checkpoint}: {name}: {before} when it was made, {now} in this run.\n"
                "  Pass what it was made with. To start from its weights alone, pass it as --model_name_or_path."
            )


def check_steps_left(config: TrainingConfig, rows: Dataset) -> None:
    """Refuse to go on with a run that is finished. One that was ended before it could save its model does so.

    Raises:
        ConfigError: no step is left to take.
    """
    checkpoint = config.resume_from_checkpoint
    if not checkpoint:
        return
    taken, planned = int(read_object(str(checkpoint), STATE).get("global_step", 0)), num_steps(config, len(rows))
    if taken < planned:
        return
    flag = "max_steps" if config.max_steps > 0 else "num_train_epochs"
    if taken > planned or (Path(str(config.output_dir)) / RESULTS).exists():
        raise ConfigError(
            f"--resume_from_checkpoint {checkpoint} is at step {taken}, and this run ends at step {planned}: nothing "
            f"is left to train.\n  Raise --{flag}, now {getattr(config, flag):g}."
        )
    say(f"{checkpoint} is at step {taken}, the last of this run: nothing is trained, and its model is saved")


class NoteFacts(TrainerCallback):
    """Writes a run's facts into the state of its checkpoints, where check_same_run reads them.

    No ExportableState: where a run goes on from a checkpoint that has none, transformers' _save_checkpoint ends in a
    KeyError.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.stateful_callbacks[NOTE] = {"args": dict(self.facts), "attributes": {}}
