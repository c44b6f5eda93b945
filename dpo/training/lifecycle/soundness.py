"""A run whose numbers are none any more ends, and leaves no checkpoint of it."""

__all__ = ["EndOnNan"]

import math
from typing import Any

from transformers import TrainerCallback

from dpo.errors import ModelError
from dpo.training.lifecycle.checkpoints import last_checkpoint

MEASURES = {"loss": "loss", "grad_norm": "norm of the gradient"}
PATIENCE = 5
"""Logged losses in a row that may be NaN where such a step is skipped."""


class EndOnNan(TrainerCallback):
    """Ends a run whose loss or gradient is NaN or infinite. What is to be saved is logged before, and so looked at.

    Args:
        skips: Whether a step with such a gradient is skipped, as by DeepSpeed and in float16: a few may be, not all.
    """

    def __init__(self, *, skips: bool) -> None:
        self.measures = ("loss",) if skips else ("loss", "grad_norm")
        self.patience = PATIENCE if skips else 1
        self.in_a_row = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_log |= control.should_save or control.should_training_stop

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_log |= control.should_save

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, Any], **kwargs: Any) -> None:
        """Look at what was logged.

        Raises:
            ModelError: it is no number.
        """
        if "loss" not in logs:  # of an evaluation, or the end's summary
            return
        found = {name: logs[name] for name in self.measures if not math.isfinite(logs.get(name, 0.0))}
        if not found:
            self.in_a_row = 0
            return
        self.in_a_row += 1
        before = last_numbers(state)
        never_trained = control.should_training_stop and not before
        if self.in_a_row < self.patience and not never_trained:
            return
        name, value = next(iter(found.items()))
        checkpoint = last_checkpoint(args.output_dir)
        raise ModelError(
            f"the {MEASURES[name]} is {value} at step {state.global_step}{before}.\n"
            "  Often the learning rate is too high, or float16 too narrow: bfloat16 has the range of float32."
            + (f"\n  {checkpoint} is from before: it may be a --model_name_or_path." if checkpoint else "")
        )


def last_numbers(state: Any) -> str:
    """What was logged the last time that it was a number, to be put behind what is none."""
    entries = [entry for entry in state.log_history[:-1] if math.isfinite(entry.get("loss", math.nan))]
    if not entries:
        return ""
    last = entries[-1]
    told = [f"the {what} was {last[name]:.4g}" for name, what in MEASURES.items() if name in last]
    return f"; at step {last['step']} {', '.join(told)}"
