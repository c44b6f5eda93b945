"""A run's flags where the run is only looked at: its devices need not be here, nor what earlier stages make."""

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
"""The stages before a run, whose output it may start from, and main.py's words for each."""


class Plan(TrainingConfig):
    """A run's flags, checked as a run checks them, for devices and a model that need not be here.

    Args:
        before: What may make the model.
        flags: Of the run.
    """

    def __init__(self, before: Before = (), **flags: Any) -> None:
        self.before = before
        self.notes: list[str] = []
        """What stands in for what is not there, a line each."""
        super().__init__(**flags)

    def locate_model(self) -> LocatedModel:
        """Where the model lies, or the one that earlier stages make it from."""
        self.start = find_start(str(self.model_name_or_path), self.model_revision, self.before, type(self))
        if self.has_stand_in:
            self.notes.append(
                f"stand-in: {self.model_name_or_path} is not there yet: configuration and tokenizer of "
                f"{self.start.name}"
            )
        return self.start.located

    @property
    def has_stand_in(self) -> bool:
        """Whether the model is yet to be made."""
        return self.start.name != self.model_name_or_path

    @cached_property
    def _setup_devices(self) -> torch.device:  # no process group is started
        self.distributed_state = None
        self._n_gpu = 0 if self.use_cpu else 1
        return torch.device("cpu") if self.use_cpu else torch.accelerator.current_accelerator() or torch.device("cpu")

    @property
    def world_size(self) -> int:
        return self.num_devices or int(os.environ.get("WORLD_SIZE", "1"))


class Unplaced(Plan):
    """A run's flags, checked as far as that needs no devices, whose kind and number its launcher alone knows.

    How the batch divides, what DeepSpeed's JSON says of it, precision and attention are left to the run.
    """

    def set_up(self) -> None:
        self.use_cpu, self.bf16, self.tf32, self.deepspeed = True, bool(self.bf16), None, None
        self.set_up_libraries()


@dataclass(frozen=True, kw_only=True)
class Start:
    """What there is of the model that a run starts from."""

    name: str
    """What the user calls it: the model itself, or the one that earlier stages make it from."""
    located: LocatedModel
    """An adapter that is yet to be made among it."""
    adapter_by: Plan | None = None
    """The run that is to make that adapter."""


def find_start(name: str, revision: str | None, before: Before, plan: type[Plan]) -> Start:
    """Follow a model's name to where it lies, or through the stages that make it to what they start from.

    Args:
        name: As the user wrote it.
        revision: Branch, tag or commit of a Hub model.
        before: What may make it.
        plan: What reads the flags of a run that does.

    Raises:
        DPOError: it leads nowhere, or a stage on the way cannot run.
    """
    is_there = any((Path(name) / file).is_file() for file in ("config.json", ADAPTER_CONFIG))
    places = [
        place
        for place, (stage, _) in enumerate(before)
        if (stage.trains or stage.kind == "merge") and find_output(name, [str(stage.output)])
    ]
    if is_there or not places:
        if name != EMBEDDED and is_hub_id(name):
            reach_hub()  # or each look at it waits for the network anew
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
