"""A run's flags for planning: its devices and the outputs of earlier stages need not exist."""

__all__ = ["Before", "Plan", "Unplaced"]

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from dpo.folders import find_output
from dpo.hub import is_hub_id, reach_hub
from dpo.models.embedded import EMBEDDED
from dpo.models.locating import ADAPTER_CONFIG, LocatedModel, locate
from dpo.recipe_file import Stage
from dpo.training.settings.flags import parse_flags
from dpo.training.settings.resolving import TrainingConfig

Before = Sequence[tuple[Stage, list[str]]]
"""The stages before a run, each with its main.py command line. The run may start from their output."""


class Plan(TrainingConfig):
    """A run's flags, checked as in a real run. Its devices and its model need not exist.

    Args:
        before: The stages before the run. One of them may produce the model.
        flags: The run's flags.
    """

    def __init__(self, before: Before = (), **flags: Any) -> None:
        self.before = before
        self.notes: list[str] = []
        """Notes about what is missing and what the plan uses instead, one line each."""
        super().__init__(**flags)

    def locate_model(self) -> LocatedModel:
        """Find the model, or the one from which earlier stages will produce it."""
        self.start = find_start(str(self.model_name_or_path), self.model_revision, self.before, type(self))
        if self.has_stand_in:
            self.notes.append(
                f"stand-in: {self.model_name_or_path} does not exist yet; the plan uses the configuration and "
                f"tokenizer of {self.start.name}"
            )
        return self.start.located

    @property
    def has_stand_in(self) -> bool:
        """Whether the model does not exist yet and another one stands in for it."""
        return self.start.name != self.model_name_or_path

    @cached_property
    def _setup_devices(self) -> torch.device:  # without starting a process group
        self.distributed_state = None
        self._n_gpu = 0 if self.use_cpu else 1
        return torch.device("cpu") if self.use_cpu else torch.accelerator.current_accelerator() or torch.device("cpu")

    @property
    def world_size(self) -> int:
        return self.num_devices or int(os.environ.get("WORLD_SIZE", "1"))


class Unplaced(Plan):
    """A run's flags, with only the checks that do not depend on the devices, which only the launcher knows.

    The real run checks batch sizes, the values in DeepSpeed's JSON, precision and attention.
    """

    def set_up(self) -> None:
        self.use_cpu, self.bf16, self.tf32, self.deepspeed = True, bool(self.bf16), None, None
        self.set_up_libraries()


@dataclass(frozen=True, kw_only=True)
class Start:
    """The model that a run starts from, as far as it exists."""

    name: str
    """The user's name for the model, or for the one from which earlier stages will produce it."""
    located: LocatedModel
    """Where it was found. May contain an adapter that does not exist yet."""
    adapter_by: Plan | None = None
    """The run that will produce that adapter."""


def find_start(name: str, revision: str | None, before: Before, plan: type[Plan]) -> Start:
    """Find a model, or follow the stages that will produce it back to the model that they start from.

    Args:
        name: The model's name, as the user wrote it.
        revision: Branch, tag or commit of a Hub model.
        before: The stages that may produce it.
        plan: The class that reads the flags of such a stage.

    Raises:
        DPOError: if there is no such model, or a stage that would produce it cannot run.
    """
    is_there = any((Path(name) / file).is_file() for file in ("config.json", ADAPTER_CONFIG))
    places = [
        place
        for place, (stage, _) in enumerate(before)
        if (stage.trains or stage.kind == "merge") and find_output(name, [str(stage.output)])
    ]
    if is_there or not places:
        if name != EMBEDDED and is_hub_id(name):
            reach_hub()  # once, or every access to the Hub waits for the network again
        return Start(name=name, located=locate(name, revision=revision))
    (stage, argv), earlier = before[places[-1]], before[: places[-1]]
    if stage.kind == "merge":
        base = str(stage.flags.get("model") or stage.flags.get("adapter"))
        start = find_start(base, stage.flags.get("model_revision"), earlier, plan)
        return Start(name=start.name, located=replace(start.located, adapter=None))
    made_by = plan(earlier, **parse_flags(argv)[1] | {"overwrite_output_dir": True})
    if made_by.lora_rank is None:
        return made_by.start
    return Start(name=made_by.start.name, located=replace(made_by.located, adapter=name), adapter_by=made_by)
