"""Stops a run whose loss or gradient is NaN or infinite, before a checkpoint is written."""

__all__ = ["EndOnNan"]

import math
from typing import Any

from transformers import TrainerCallback

from dpo.errors import ModelError
from dpo.training.lifecycle.checkpoints import last_checkpoint

MEASURES = {"loss": "loss", "grad_norm": "norm of the gradient"}
PATIENCE = 5
"""Consecutive logged losses that are not finite before a run stops that skips such steps."""


class EndOnNan(TrainerCallback):
    """Stops a run whose loss or gradient is NaN or infinite.

    It logs before each checkpoint and before the end, so that the loss is checked before weights are saved.

    Args:
        skips: Whether the run skips steps with such a gradient, as DeepSpeed does and as float16 training does. Then a
            few such steps are allowed.
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
        """Check the loss and the norm of the gradient in a log entry.

        Raises:
            ModelError: if one is NaN or infinite.
        """
        if "loss" not in logs:  # an evaluation, or the summary at the end
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
            "  Common causes are a learning rate that is too high, and float16. bfloat16 has the range of float32."
            + (
                f"\n  {checkpoint} is from before. To start from it, pass it as --model_name_or_path."
                if checkpoint
                else ""
            )
        )


def last_numbers(state: Any) -> str:
    """The last finite values in the log, as a clause that continues an error message. "" if there are none."""
    entries = [entry for entry in state.log_history[:-1] if math.isfinite(entry.get("loss", math.nan))]
    if not entries:
        return ""
    last = entries[-1]
    values = [f"the {label} was {last[name]:.4g}" for name, label in MEASURES.items() if name in last]
    return f"; at step {last['step']} {', '.join(values)}"
