"""Tests of dpo.folders: checks of the folders that a user names."""

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
    """A folder that everyone can read and only root can write to."""
    with tempfile.TemporaryDirectory() as outer:
        Path(outer).chmod(0o755)
        folder = Path(outer) / "locked"
        folder.mkdir(mode=0o555)
        yield folder


def error_without_root(folder: Path) -> str:
    """Return the error of check_folder in a process without root's rights, because root can write anywhere."""
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
    with os.fdopen(read) as message:
        return message.read()


def test_a_folder_in_one_that_cannot_be_written_to_is_refused(locked: Path) -> None:
    assert f"--output {locked / 'out'}: no permission to write to {locked}" in error_without_root(locked / "out")


def test_a_folder_in_one_that_cannot_be_read_is_refused(locked: Path) -> None:
    locked.chmod(0o000)
    assert "cannot be created: Permission denied" in error_without_root(locked / "below" / "out")


def test_an_existing_folder_may_be_read_only(locked: Path) -> None:
    assert error_without_root(locked) == ""


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be created: File name too long"):
        check_folder("output", tmp_path / ("x" * 300))


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file is a file, expected a folder or a new path"):
        check_folder("output", tmp_path / "file" / "out")


def test_a_relative_folder_need_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_an_output_is_found_by_its_path_or_a_path_inside_it(text: str, in_folder: bool, found: str | None) -> None:
    assert find_output(text, ["out/sft", "out/rows.jsonl"], in_folder=in_folder) == found


def test_a_similar_name_is_suggested(tmp_path: Path) -> None:
    for name in ("zero1.json", "zero2.json", "other.json"):
        (tmp_path / name).touch()
    assert similar_path(tmp_path / "zreo2.json") == f" Did you mean {tmp_path}/zero2.json?"
    assert similar_path(str(tmp_path / "nothing")) == similar_path(tmp_path / "no" / "zero1.json") == ""
    assert similar_path(tmp_path / "zero1.json") == "", "the file exists"
