"""Train a model on preference pairs: `deepspeed main.py --config runs/demo.yaml`, or python, torchrun, accelerate."""

import os
import sys
import time

from dpo.errors import DPOError
from dpo.training.run import run

PATIENCE_S = 20
"""How long other ranks give the first one to say what is wrong, before their exit makes the launcher end it."""


def main() -> int:
    try:
        run(sys.argv[1:])
    except DPOError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr, flush=True)
        else:
            time.sleep(PATIENCE_S)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
