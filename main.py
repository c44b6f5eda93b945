"""Train a model on preference pairs: `deepspeed main.py --config runs/demo.yaml`, or python, torchrun, accelerate."""

import sys

from dpo.commands.train import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
