"""A scratch folder for the blocks of one page."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from dpo.models.embedded import embedded_model
from tests.conftest import launch_environment
from tests.docs.running import PageRun


@pytest.fixture(scope="session")
def model_cache(session_cache: Path) -> Path:
    """The session's cache with the embedded model, which one worker converts while the others wait."""
    models = session_cache / "models"
    models.mkdir(exist_ok=True)
    with FileLock(models / "lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPO_CACHE", str(session_cache))
        embedded_model()
    return session_cache


@pytest.fixture
def page_run(session_cache: Path, tmp_path: Path) -> Iterator[PageRun]:
    """A scratch folder for one page. It is removed after the test: the models that a page trains take gigabytes."""
    folder = tmp_path / "page"
    folder.mkdir()
    yield PageRun(folder, launch_environment(session_cache))
    shutil.rmtree(folder)
