"""Which output folders a merge accepts."""

from pathlib import Path

import pytest

from dpo.errors import ConfigError
from dpo.folders import MERGE_REPORT
from dpo.merging.folder import check_output


def test_a_new_or_empty_folder_is_accepted(tmp_path: Path) -> None:
    check_output(tmp_path / "new", overwrite=False, inputs=())
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty", overwrite=False, inputs=())


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"is not empty\.\n.*--overwrite"):
        check_output(tmp_path, overwrite=False, inputs=())


def test_only_a_merge_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="was not made by `dpo merge`, so it was not replaced"):
        check_output(tmp_path, overwrite=True, inputs=())
    (tmp_path / MERGE_REPORT).write_text("{}")
    check_output(tmp_path, overwrite=True, inputs=())


@pytest.mark.parametrize("output", ["base", "."])
def test_what_the_merge_reads_is_never_overwritten(output: str, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for folder in (tmp_path, base):
        (folder / MERGE_REPORT).write_text("{}")
    with pytest.raises(ConfigError, match="which the merge reads"):
        check_output(tmp_path / output, overwrite=True, inputs=(str(base),))
    check_output(base / "merged", overwrite=False, inputs=(str(base),))


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    with pytest.raises(ConfigError, match="is a symbolic link"):
        check_output(tmp_path / "link", overwrite=True, inputs=())
