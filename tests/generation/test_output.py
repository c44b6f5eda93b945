"""Pairs on disk: a killed run is resumed, and files of other programs are not changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from dpo.errors import ConfigError, DataError
from dpo.generation.output import BatchRecord, open_output
from tests.builders import pair

SETTINGS = {"--temperature": 0.8, "--datasets": ["triplets=rows.jsonl"]}


def record(row: int) -> BatchRecord:
    return BatchRecord(rows=[row, row + 1], dropped={1: ("unfinished", "cut off")}, num_tokens=9)


def append(file: Path, *rows: int, settings: Any = SETTINGS, overwrite: bool = False) -> list[BatchRecord]:
    """Write a batch for each row, and return the batches that were finished before."""
    with open_output(file, settings, overwrite=overwrite) as output:
        for row in rows:
            output.append([pair(source="s", row=row)], record(row))
        return output.finished


def rows_of(file: Path) -> list[int]:
    return [json.loads(line)["row"] for line in file.read_text().splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "rows.jsonl"


@pytest.fixture
def progress(file: Path) -> Path:
    return file.with_name("rows.jsonl.progress")


def test_a_pair_is_a_line_with_its_source_and_row(file: Path) -> None:
    append(file, 7)
    assert json.loads(file.read_text()) == {
        "prompt": [{"role": "user", "content": "Name a noble gas."}],
        "chosen": "Neon.",
        "rejected": "Oxygen.",
        "source": "s",
        "row": 7,
    }


def test_a_file_is_resumed_after_its_finished_batches(file: Path) -> None:
    assert append(file, 0, 2) == []
    finished = append(file, 4)
    assert [batch.rows for batch in finished] == [[0, 1], [2, 3]]
    assert finished[0].dropped == {1: ("unfinished", "cut off")}
    assert [batch.rows for batch in append(file)] == [[0, 1], [2, 3], [4, 5]]
    assert rows_of(file) == [0, 2, 4]


def test_a_half_written_line_is_cut_off(file: Path) -> None:
    append(file, 0, 2)
    whole = file.read_bytes()
    with file.open("ab") as pairs:
        pairs.write(whole[:40])
    append(file, 4)
    assert rows_of(file) == [0, 2, 4]
    assert file.read_bytes().startswith(whole)


def test_pairs_whose_batch_was_not_finished_are_cut_off(file: Path, progress: Path) -> None:
    append(file, 0, 2)
    lines = progress.read_bytes().splitlines(keepends=True)
    for rest in (b"", lines[-1][:10], lines[-1][:-1]):
        progress.write_bytes(b"".join(lines[:-1]) + rest)
        assert [batch.rows for batch in append(file)] == [[0, 1]]
        assert rows_of(file) == [0]
        append(file, 2)
        assert progress.read_bytes() == b"".join(lines)


def test_settings_that_were_half_written_are_written_again(file: Path, progress: Path) -> None:
    append(file, 0)
    whole = progress.read_bytes()
    for length in (0, 5, whole.index(b"\n")):
        progress.write_bytes(whole[:length])
        assert append(file, 0) == []
        assert progress.read_bytes() == whole


def test_without_a_finished_batch_the_files_are_deleted_and_other_settings_are_accepted(
    file: Path, progress: Path
) -> None:
    with pytest.raises(RuntimeError, match="no model"), open_output(file, SETTINGS, overwrite=False):
        assert file.exists() and progress.exists()
        raise RuntimeError("no model")
    assert list(file.parent.iterdir()) == []
    file.touch()
    progress.write_text(json.dumps({"settings": SETTINGS}) + "\n")  # as after a kill
    append(file, 0, settings={"--temperature": 1.0})
    assert rows_of(file) == [0]


def test_other_settings_are_refused_by_name(file: Path) -> None:
    append(file, 0)
    with pytest.raises(ConfigError, match=r"--temperature was 0\.8, and is now 1\.0\.\n.*--overwrite to start again"):
        append(file, 2, settings=SETTINGS | {"--temperature": 1.0})
    assert rows_of(file) == [0]


def test_a_file_is_started_again_with_overwrite(file: Path) -> None:
    append(file, 0, 2)
    assert append(file, 4, settings={}, overwrite=True) == []
    assert rows_of(file) == [4]
    assert [batch.rows for batch in append(file, settings={})] == [[4, 5]]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_another_program_is_not_changed(tmp_path: Path, overwrite: bool) -> None:
    file = tmp_path / "thesis.jsonl"
    file.write_text("years of work")
    with pytest.raises(ConfigError, match=r"exists without thesis\.jsonl\.progress"):
        append(file, 0, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.jsonl"]
    assert file.read_text() == "years of work"


@pytest.mark.parametrize("content", ["half of my thesis", '{"thesis": "mine"}\n', '{"settings": {}}\n{"more": 1}\n'])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_progress_file_of_another_program_is_not_changed(
    file: Path, progress: Path, content: str, overwrite: bool
) -> None:
    file.parent.mkdir()
    progress.write_text(content)
    with pytest.raises(ConfigError, match=r"rows\.jsonl\.progress: expected the progress file"):
        append(file, 0, overwrite=overwrite)
    assert progress.read_text() == content


def test_a_file_that_lost_pairs_is_refused(file: Path) -> None:
    append(file, 0, 2)
    file.write_text("")
    with pytest.raises(DataError, match=r"has 0 bytes, but rows\.jsonl\.progress expects"):
        append(file)


def test_two_processes_do_not_write_one_file(file: Path) -> None:
    with open_output(file, SETTINGS, overwrite=False):
        with pytest.raises(ConfigError, match="another process is writing to it"):
            append(file, 0)
        with pytest.raises(ConfigError, match="another process is writing to it"):
            append(file, 0, overwrite=True)
    append(file, 0)
    assert rows_of(file) == [0]
