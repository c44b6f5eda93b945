"""Preference tuning: raw preference rows in, an aligned language model out.

Importing this package loads no heavy library. Torch is imported by `dpo.training`, which contains the trainer.
"""

import logging

__version__ = "0.1.0"

__all__ = ["__version__"]

# PEFT imports bitsandbytes in every command. On CPUs with bfloat16 products, bitsandbytes then warns about a kernel
# that this package never calls.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
