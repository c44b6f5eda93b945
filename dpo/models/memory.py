"""Configures how a run on a CPU allocates memory."""

__all__ = ["keep_freed_memory"]

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Options of mallopt, by their names in glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Allocate memory in huge pages, and keep freed memory for the next step.

    A step frees gigabytes that the next step allocates again. By default, glibc returns this memory to the kernel,
    which clears each page before it hands it out again. Measured with SmolLM2, 4 pairs per step, on 2 cores: 8 % less
    processor time per step. Call this before torch creates its first tensor. Without glibc it does nothing.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's switch for transparent huge pages
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
