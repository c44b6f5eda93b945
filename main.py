"""Train a model on preference pairs.

Start it with `deepspeed main.py --config runs/demo.yaml`, or with python, torchrun or `accelerate launch`.
"""

import sys

from dpo.commands.train import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
