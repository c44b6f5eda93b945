"""Runs main.py and prints how many of the model's parameters are sharded between the ranks when training begins."""

import sys
from typing import Any

from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, trainer

from main import main


class TellShards(TrainerCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        parameters = list(model.parameters())
        sharded = sum(isinstance(p, DTensor) and p.to_local().numel() < p.numel() for p in parameters)
        print(f"sharded: {sharded} of {len(parameters)} parameters", flush=True)


if __name__ == "__main__":
    trainer.DEFAULT_CALLBACKS.append(TellShards)
    sys.exit(main(sys.argv[1:]))
