"""The cache folder, whose contents are shared between runs."""

__all__ = ["cache_root", "publish"]

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_root() -> Path:
    """Return $DPO_CACHE if it is set, otherwise dpo/ in the user's cache folder."""
    if folder := os.environ.get("DPO_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dpo"


def publish(folder: Path, build: Callable[[Path], None], *, replace: bool = False) -> Path:
    """Build a folder so that it is either complete or absent: it is built under a temporary name and then renamed.

    Args:
        folder: Path of the result. If it exists, it is returned without a build.
        build: Function that fills an empty folder.
        replace: Whether to build even if the folder exists. The old folder is removed when the new one is complete.
    """
    if folder.exists() and not replace:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        build(work)
        work.chmod(0o755)  # mkdtemp creates 0o700, which other users of a shared cache cannot read
        if replace and folder.exists():
            shutil.rmtree(folder)
        work.rename(folder)
    except OSError:
        if replace or not folder.exists():
            raise
        # Another process has built the same content in the meantime.
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder
