"""A scratch folder for the blocks of one page."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import launch_environment
from tests.docs.running import PageRun


@pytest.fixture
def page_run(session_cache: Path, tmp_path: Path) -> Iterator[PageRun]:
    """Removed after the test: the models that a page trains take gigabytes."""
    folder = tmp_path / "page"
    folder.mkdir()
    yield PageRun(folder, launch_environment(session_cache))
    shutil.rmtree(folder)
