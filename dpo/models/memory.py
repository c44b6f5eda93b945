"""How a run on a CPU asks for memory."""

__all__ = ["keep_freed_memory"]

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""glibc's names in malloc.h."""


def keep_freed_memory() -> None:
    """Ask for memory in large pages, and keep what is freed for the next step.

    A step frees gigabytes that the next one asks for again. glibc hands them back to the kernel, which clears each
    page before it gives it out once more. SmolLM2, 4 pairs a step, 2 cores: 8 % less processor time a step. Must come
    before torch's first tensor, and does nothing where there is no glibc.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's switch for transparent huge pages
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
