"""Folders that a user names."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dpo.errors import ConfigError
from dpo.folders import check_folder, find_output, similar_path

NOBODY = 65534


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder that everyone may look into and none but root may write to."""
    with tempfile.TemporaryDirectory() as outer:
        Path(outer).chmod(0o755)
        folder = Path(outer) / "locked"
        folder.mkdir(mode=0o555)
        yield folder


def complaint_as_nobody(folder: Path) -> str:
    """What check_folder says in a process without root's rights, which root would write anywhere with."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        if os.geteuid() == 0:
            os.setuid(NOBODY)
        try:
            check_folder("output", folder)
        except ConfigError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as said:
        return said.read()


def test_a_folder_in_one_that_cannot_be_written_to(locked: Path) -> None:
    assert f"--output {locked / 'out'}: {locked} cannot be written to" in complaint_as_nobody(locked / "out")


def test_a_folder_behind_one_that_cannot_be_looked_into(locked: Path) -> None:
    locked.chmod(0o000)
    assert "cannot be made: Permission denied" in complaint_as_nobody(locked / "below" / "out")


def test_a_folder_that_is_there_may_be_read_only(locked: Path) -> None:
    assert complaint_as_nobody(locked) == ""


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be made: File name too long"):
        check_folder("output", tmp_path / ("x" * 300))


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file is a file, expected a folder or nothing"):
        check_folder("output", tmp_path / "file" / "out")


def test_a_relative_folder_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_folder("output", Path("new") / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "in_folder", "found"),
    [
        ("out/sft", False, "out/sft"),
        ("./out/../out/sft/checkpoint-5", False, "out/sft"),
        ("out/rows.jsonl:train@0.5", False, "out/rows.jsonl"),
        ("out/sft_more", False, None),
        ("out", False, None),
        ("out", True, "out/sft"),
        ("org/model", True, None),
        ("", True, None),
    ],
)
def test_an_output_is_found_by_what_names_it_or_lies_in_it(text: str, in_folder: bool, found: str | None) -> None:
    assert find_output(text, ["out/sft", "out/rows.jsonl"], in_folder=in_folder) == found


def test_what_is_called_alike_is_offered(tmp_path: Path) -> None:
    for name in ("zero1.json", "zero2.json", "other.json"):
        (tmp_path / name).touch()
    assert similar_path(tmp_path / "zreo2.json") == f" Did you mean {tmp_path}/zero2.json?"
    assert similar_path(str(tmp_path / "nothing")) == similar_path(tmp_path / "no" / "zero1.json") == ""
    assert similar_path(tmp_path / "zero1.json") == "", "it is there"
