"""The commands of the how-to guides work as written."""

from pathlib import Path

import pytest

from tests.docs.blocks import page_text, pages_with_blocks
from tests.docs.running import PageRun


@pytest.mark.parametrize("page", pages_with_blocks(guides=True), ids=str)
@pytest.mark.usefixtures("model_cache")
def test_every_block_of_the_guide_works(page: Path, page_run: PageRun) -> None:
    page_run.run(str(page), page_text(page))
