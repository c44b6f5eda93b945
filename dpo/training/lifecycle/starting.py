"""The start of a run's output_dir: after models, reference and checkpoint have loaded, and only if steps are left."""

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
"""Of a whole model and of an adapter. One that an earlier run of the other kind left would describe the wrong model."""


class StartOutput(TrainerCallback):
    """Removes what an earlier run left, and writes the reports on this run's data.

    Args:
        args: The run's flags, as transformers knows them.
        prepared: Its data.
        overwrite: Whether what an earlier run left may be removed. Its checkpoints stay where this run resumes.
    """

    def __init__(self, args: TrainingArguments, prepared: PreparedData, *, overwrite: bool) -> None:
        self.args = args
        self.prepared = prepared
        self.overwrite = overwrite
        self.replaces_finished = (Path(str(args.output_dir)) / RESULTS).exists()  # now, before a rank removes it

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
    """Refuse to resume a run that has taken its last step.

    Args:
        args: The run's flags.
        state: From the checkpoint.
        may_end_here: Whether the run may be at its last step, with its model still to save.

    Raises:
        ConfigError: no step is left to take.
    """
    if state.global_step < state.max_steps:
        return
    at = f"{args.resume_from_checkpoint} is at step {state.global_step}"
    if state.global_step == state.max_steps and may_end_here:
        say(f"{at}, the last of this run: nothing is trained, and its model is saved")
        return
    ends_by = f"max_steps {args.max_steps}" if args.max_steps > 0 else f"num_train_epochs {args.num_train_epochs:g}"
    raise ConfigError(
        f"--resume_from_checkpoint {at}, and with --{ends_by} this run ends at step {state.max_steps}: nothing is "
        "left to train.\n  Raise it, or leave --resume_from_checkpoint out to begin anew."
    )


def start_output(output_dir: Path, prepared: PreparedData, *, overwrite: bool, keep_checkpoints: bool) -> None:
    """Put the data report into output_dir, without what an earlier run left there.

    Raises:
        ConfigError: the folder cannot be made.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output_dir {output_dir}: cannot be made: {error.strerror}") from error
    if overwrite:
        stale = [file for pattern in (*REPORTS, *WEIGHTS, *CONFIGURATIONS) for file in output_dir.glob(pattern)]
        for file in stale:
            file.unlink()
        for checkpoint in [] if keep_checkpoints else output_dir.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    for name in MADE_BY_PREPARE:
        shutil.copyfile(prepared.folder / name, output_dir / name)
