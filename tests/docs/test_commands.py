"""The commands of README.md, CONTRIBUTING.md and the pages in docs/ work as written.

The how-to guides are in test_guides.py: pytest-xdist gives a file to one worker, and two files take half the time.
"""

from pathlib import Path

import pytest

from tests.docs.blocks import page_text, pages_with_blocks
from tests.docs.running import PageRun


@pytest.mark.parametrize("page", pages_with_blocks(guides=False), ids=str)
@pytest.mark.usefixtures("model_cache")
def test_every_block_of_the_page_works(page: Path, page_run: PageRun) -> None:
    page_run.run(str(page), page_text(page))
