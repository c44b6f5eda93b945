"""Where output_dir becomes a run's: once its models, its reference and its checkpoint are there, and steps are left."""

__all__ = ["StartOutput"]

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState

from dpo.data.pipeline import MADE_BY_PREPARE, PreparedData
from dpo.errors import ConfigError
from dpo.folders import RESULTS
from dpo.models import ADAPTER_CONFIG
from dpo.training.checks import WEIGHTS
from dpo.training.config import TrainingConfig
from dpo.training.distributed import is_main_process, say
from dpo.training.summary import REPORTS

CONFIGURATIONS = ("config.json", ADAPTER_CONFIG)
"""Of a whole model, and of an adapter: what an earlier run left of the other kind would speak for this one's."""


class StartOutput(TrainerCallback):
    """Removes what an earlier run has left, and writes down what this one's data are.

    Args:
        config: The run's flags.
        prepared: Its data.
    """

    def __init__(self, config: TrainingConfig, prepared: PreparedData) -> None:
        self.config = config
        self.prepared = prepared
        self.replaces_finished = (Path(str(config.output_dir)) / RESULTS).exists()  # now, before a rank removes it

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        check_steps_left(self.config, state, may_end_here=not self.replaces_finished)
        if is_main_process():
            start_output(self.config, self.prepared)


def check_steps_left(config: TrainingConfig, state: TrainerState, *, may_end_here: bool) -> None:
    """Refuse to go on with a run that has taken its last step.

    Args:
        config: The run's flags.
        state: As a checkpoint has left it.
        may_end_here: Whether it may be at that step, and has its model still to save.

    Raises:
        ConfigError: no step is left to take.
    """
    if state.global_step < state.max_steps:
        return
    at = f"{config.resume_from_checkpoint} is at step {state.global_step}"
    if state.global_step == state.max_steps and may_end_here:
        say(f"{at}, the last of this run: nothing is trained, and its model is saved")
        return
    ends_by = (
        f"max_steps {config.max_steps}" if config.max_steps > 0 else f"num_train_epochs {config.num_train_epochs:g}"
    )
    raise ConfigError(
        f"--resume_from_checkpoint {at}, and with --{ends_by} this run ends at step {state.max_steps}: nothing is "
        "left to train.\n  Raise it, or leave --resume_from_checkpoint out to begin anew."
    )


def start_output(config: TrainingConfig, prepared: PreparedData) -> None:
    """Put the account of the data into output_dir, without what an earlier run left there."""
    output_dir = Path(str(config.output_dir))
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output_dir {output_dir}: cannot be made: {error.strerror}") from error
    if config.overwrite_output_dir:
        stale = [file for pattern in (*REPORTS, *WEIGHTS, *CONFIGURATIONS) for file in output_dir.glob(pattern)]
        for file in stale:
            file.unlink()
        for checkpoint in [] if config.resume_from_checkpoint else output_dir.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    for name in MADE_BY_PREPARE:
        shutil.copyfile(prepared.folder / name, output_dir / name)
