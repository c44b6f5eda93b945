"""The commands of the how-to guides work as written."""

from pathlib import Path

import pytest

from tests.docs.blocks import pages_with_blocks
from tests.docs.running import PageRun


@pytest.mark.parametrize("page", pages_with_blocks(guides=True), ids=str)
def test_every_block_of_the_guide_works(page: Path, page_run: PageRun) -> None:
    page_run.run(page)
