"""Preference tuning: raw preference rows in, an aligned language model out.

Importing this package loads nothing heavy; the trainer lives in `dpo.training`, where torch starts.
"""

import logging

__version__ = "0.1.0"

__all__ = ["__version__"]

# PEFT imports it in every command, and on CPUs with bfloat16 products it warns of a kernel that nothing here calls.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
