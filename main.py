"""Train a model on preference pairs: `deepspeed main.py --config runs/demo.yaml`, or python, torchrun, accelerate."""

import os
import signal
import sys
import time

from dpo.errors import DPOError

PATIENCE_S = 10
"""How long other ranks let the first one speak for them, before their exit makes the launcher end it."""


def main() -> int:
    from dpo.training.run import run  # here, since the processes that prepare rows import this file, and need no torch

    try:
        run(sys.argv[1:])
    except DPOError as error:
        rank = os.environ.get("RANK", "0")
        if rank != "0":
            time.sleep(PATIENCE_S)
        print(f"error: {error}" if rank == "0" else f"error on rank {rank}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print("interrupted; --resume_from_checkpoint latest goes on from a checkpoint", file=sys.stderr, flush=True)
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
