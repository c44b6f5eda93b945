"""Tests of dpo.cache: folders that are either complete or absent."""

from pathlib import Path

import pytest

from dpo.cache import cache_root, publish


def write_two(folder: Path) -> None:
    (folder / "a.txt").write_text("a")
    (folder / "b.txt").write_text("b")


def must_not_build(folder: Path) -> None:
    raise AssertionError("built a second time")


def test_environment_variables_set_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DPO_CACHE", str(tmp_path / "here"))
    assert cache_root() == tmp_path / "here"
    monkeypatch.delenv("DPO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "dpo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "dpo"


def test_only_the_complete_result_is_left_in_the_folder(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "down" / "result"
    assert publish(target, write_two) == target
    assert sorted(file.name for file in target.iterdir()) == ["a.txt", "b.txt"]
    assert [entry.name for entry in target.parent.iterdir()] == ["result"]


def test_the_target_does_not_exist_during_the_build(tmp_path: Path) -> None:
    target = tmp_path / "result"
    seen = []

    def build(folder: Path) -> None:
        (folder / "a.txt").write_text("a")
        seen.append(target.exists())

    publish(target, build)
    assert seen == [False]


def test_a_second_call_does_not_build(tmp_path: Path) -> None:
    target = publish(tmp_path / "result", write_two)
    assert publish(target, must_not_build) == target
    assert (target / "a.txt").read_text() == "a"


@pytest.mark.parametrize("error", [ValueError("broken"), OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_is_raised_and_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def build(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise error

    with pytest.raises(type(error)):
        publish(tmp_path / "result", build)
    assert list(tmp_path.iterdir()) == []


def test_if_two_processes_build_at_once_the_first_result_stays(tmp_path: Path) -> None:
    target = tmp_path / "result"

    def build_while_another_finishes(folder: Path) -> None:
        (folder / "late.txt").write_text("late")
        publish(target, write_two)

    assert publish(target, build_while_another_finishes) == target
    assert sorted(file.name for file in target.iterdir()) == ["a.txt", "b.txt"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["result"]


def test_other_users_may_read_the_result(tmp_path: Path) -> None:
    assert publish(tmp_path / "result", write_two).stat().st_mode & 0o777 == 0o755


class TestReplacing:
    def test_the_old_folder_stays_until_the_new_one_is_complete(self, tmp_path: Path) -> None:
        target = publish(tmp_path / "result", write_two)
        (target / "old.txt").write_text("old")

        def build(folder: Path) -> None:
            assert (target / "old.txt").exists()
            (folder / "c.txt").write_text("c")

        publish(target, build, replace=True)
        assert [file.name for file in target.iterdir()] == ["c.txt"]

    def test_a_failure_is_raised_and_leaves_the_old_folder(self, tmp_path: Path) -> None:
        target = publish(tmp_path / "result", write_two)

        def fail(folder: Path) -> None:
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            publish(target, fail, replace=True)
        assert sorted(file.name for file in target.iterdir()) == ["a.txt", "b.txt"]

    def test_replacing_an_absent_folder_is_not_an_error(self, tmp_path: Path) -> None:
        assert (publish(tmp_path / "result", write_two, replace=True) / "a.txt").read_text() == "a"
