"""What is worth keeping between runs, in one folder of the user's."""

__all__ = ["cache_root", "publish"]

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_root() -> Path:
    """$DPO_CACHE, else dpo/ in the user's cache folder."""
    if folder := os.environ.get("DPO_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dpo"


def publish(folder: Path, build: Callable[[Path], None], *, replace: bool = False) -> Path:
    """A folder that is either whole or not there: built beside its place, then renamed into it.

    Args:
        folder: Where the result belongs. Returned at once if it exists.
        build: Fills the empty folder it is given.
        replace: Whether to build in any case, and to remove what was there once the new one is whole.
    """
    if folder.exists() and not replace:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        build(work)
        work.chmod(0o755)  # mkdtemp's 0o700 would hide a shared cache from its other users
        if replace and folder.exists():
            shutil.rmtree(folder)
        work.rename(folder)
    except OSError:
        if replace or not folder.exists():
            raise
        # Another process built the same content meanwhile.
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder
