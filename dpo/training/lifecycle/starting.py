"""Prepares output_dir when training begins: after model, reference and checkpoint have loaded, if steps are left."""

__all__ = ["StartOutput"]

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments

from dpo.data.pipeline import MADE_BY_PREPARE, PreparedData
from dpo.errors import ConfigError
from dpo.folders import REPORTS, RESULTS, WEIGHTS
from dpo.models.locating import ADAPTER_CONFIG
from dpo.training.distributed import is_main_process, say

CONFIGURATIONS = ("config.json", ADAPTER_CONFIG)
"""Configurations of a whole model and of an adapter. One from an earlier run may describe the wrong kind of model."""


class StartOutput(TrainerCallback):
    """Removes the files of an earlier run, and writes the reports about this run's data.

    Args:
        args: The run's flags.
        prepared: The run's data.
        overwrite: Whether the files of an earlier run may be removed. Its checkpoints are kept if this run resumes.
    """

    def __init__(self, args: TrainingArguments, prepared: PreparedData, *, overwrite: bool) -> None:
        self.args = args
        self.prepared = prepared
        self.overwrite = overwrite
        self.replaces_finished = (
            Path(str(args.output_dir)) / RESULTS
        ).exists()  # checked now, before a rank removes it

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        check_steps_left(self.args, state, may_end_here=not self.replaces_finished)
        if is_main_process():
            keep_checkpoints = bool(self.args.resume_from_checkpoint)
            start_output(
                Path(str(self.args.output_dir)),
                self.prepared,
                overwrite=self.overwrite,
                keep_checkpoints=keep_checkpoints,
            )


def check_steps_left(args: TrainingArguments, state: TrainerState, *, may_end_here: bool) -> None:
    """Check that a resumed run has steps left.

    Args:
        args: The run's flags.
        state: The trainer state from the checkpoint.
        may_end_here: Whether the checkpoint may be at the last step, because the model has not been saved yet.

    Raises:
        ConfigError: if no step is left.
    """
    if state.global_step < state.max_steps:
        return
    at = f"{args.resume_from_checkpoint} is at step {state.global_step}"
    if state.global_step == state.max_steps and may_end_here:
        say(f"{at}, the last step of this run: the model is saved without further training")
        return
    ends_by = f"max_steps {args.max_steps}" if args.max_steps > 0 else f"num_train_epochs {args.num_train_epochs:g}"
    raise ConfigError(
        f"--resume_from_checkpoint {at}, and with --{ends_by} this run ends at step {state.max_steps}: nothing is "
        "left to train.\n  Raise the limit, or leave --resume_from_checkpoint out to start from the beginning."
    )


def start_output(output_dir: Path, prepared: PreparedData, *, overwrite: bool, keep_checkpoints: bool) -> None:
    """Create output_dir, remove the files of an earlier run, and copy the reports about the data into it.

    Args:
        output_dir: The run's output_dir.
        prepared: The run's data.
        overwrite: Whether to remove the files of an earlier run.
        keep_checkpoints: Whether to keep the checkpoints of an earlier run.

    Raises:
        ConfigError: if the folder cannot be created.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output_dir {output_dir}: cannot be created: {error.strerror}") from error
    if overwrite:
        stale = [file for pattern in (*REPORTS, *WEIGHTS, *CONFIGURATIONS) for file in output_dir.glob(pattern)]
        for file in stale:
            file.unlink()
        for checkpoint in [] if keep_checkpoints else output_dir.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    for name in MADE_BY_PREPARE:
        shutil.copyfile(prepared.folder / name, output_dir / name)
