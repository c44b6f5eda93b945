"""Preference tuning: raw preference rows in, an aligned language model out.

Importing this package loads nothing heavy; the trainer lives in `dpo.training`, where torch starts.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
