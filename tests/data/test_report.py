"""The account of every row."""

from collections import Counter
from pathlib import Path

import pytest

from dpo.data.report import DataReport, SourceReport
from dpo.errors import DataError
from dpo.records import Drop


def report() -> DataReport:
    """Two sources: of 1,202 rows, 1,200 are kept, 1 is a tie and 1 too long; of 3 rows, 2 are kept and 1 is a tie."""
    first, second = SourceReport(raw_rows=1202), SourceReport(raw_rows=1)
    first.enter(1202)
    for _ in range(1200):
        first.keep()
    first.drop(Drop("tie", "both scores are 3"), 5)
    first.drop(Drop("too_long", "61 + 40 tokens"), 9)
    second.enter(3)
    second.keep(["boundary_shift"])
    second.keep()
    second.drop(Drop("tie"), 0)
    return DataReport(
        sources={"nectar=rows.jsonl": first, "orca": second}, pairs={"train": 1100, "eval": 102}, notes=["Größe ½"]
    )


def test_what_is_kept_and_dropped_is_counted_per_source_and_in_all() -> None:
    account = report()
    assert account.sources["orca"].counts() == {
        "raw_rows": 1,
        "rows": 3,
        "kept": 2,
        "dropped": {"tie": 1},
        "flagged": {"boundary_shift": 1},
    }
    assert account.total().counts() == {
        "raw_rows": 1203,
        "rows": 1205,
        "kept": 1202,
        "dropped": {"tie": 2, "too_long": 1},
        "flagged": {"boundary_shift": 1},
    }
    account.check()


def test_a_source_that_does_not_add_up_is_an_error() -> None:
    account = report()
    account.sources["orca"].rows += 1
    with pytest.raises(DataError, match=r"orca: 4 rows != 2 kept \+ 1 dropped"):
        account.check()


def test_a_row_that_was_neither_kept_nor_dropped_is_an_error() -> None:
    account = SourceReport()
    account.enter(3)
    account.keep()
    account.drop(Drop("tie"), 1)
    with pytest.raises(DataError, match=r"here: 3 rows != 1 kept \+ 1 dropped"):
        account.check("here")


def test_a_row_that_was_dropped_twice_is_an_error() -> None:
    account = SourceReport(rows=3, kept=2, dropped=Counter(tie=2))
    with pytest.raises(DataError, match=r"here: 3 rows != 2 kept \+ 2 dropped"):
        account.check("here")


def test_pairs_that_were_kept_and_not_written_are_an_error() -> None:
    account = report()
    account.pairs["eval"] -= 1
    with pytest.raises(DataError, match=r"1202 pairs kept, but .* written"):
        account.check()


def test_the_total_leaves_its_sources_as_they_are() -> None:
    account = report()
    account.total()
    account.total()
    assert account.sources["orca"].dropped == Counter(tie=1)
    assert account.total().dropped.total() == 3


def test_three_rows_of_each_reason_are_named() -> None:
    account = SourceReport()
    for row in range(10, 20):
        account.drop(Drop("tie", f"row {row}" + "x" * 500), row)
    account.drop(Drop("identical"), 99)
    assert [example["row"] for example in account.examples["tie"]] == [10, 11, 12]
    assert account.examples["identical"] == [{"row": 99, "detail": ""}]
    assert len(account.examples["tie"][0]["detail"]) == 200


def test_a_report_is_the_same_after_a_round_trip(tmp_path: Path) -> None:
    account = report()
    account.save(tmp_path / "report.json")
    again = DataReport.load(tmp_path / "report.json")
    assert again == account
    again.check()
    assert "Größe ½" in (tmp_path / "report.json").read_text(encoding="utf-8")


def test_the_table_shows_every_source_and_the_total() -> None:
    assert report().table().splitlines() == [
        "source              rows   kept  dropped",
        "--------------------------------------------------",
        "nectar=rows.jsonl  1,202  1,200  1 tie, 1 too_long",
        "orca                   3      2  1 tie",
        "total              1,205  1,202  2 tie, 1 too_long",
        "pairs: 1,100 train, 102 eval",
        "boundary_shift: 1 kept pairs whose prompt would have merged with their answer",
        "Größe ½",
    ]


def test_an_account_of_answers_calls_them_so(tmp_path: Path) -> None:
    account = report()
    account.stage = "sft"
    assert account.table().splitlines()[5:7] == [
        "answers: 1,100 train, 102 eval",
        "boundary_shift: 1 kept answers whose prompt would have merged with their answer",
    ]
    account.save(tmp_path / "report.json")
    assert DataReport.load(tmp_path / "report.json").stage == "sft"


def test_a_source_that_lost_nothing_says_so() -> None:
    account = SourceReport(raw_rows=1)
    account.enter()
    account.keep()
    table = DataReport(sources={"a": account}, pairs={"train": 1}).table()
    assert "a          1     1  none" in table.splitlines()
    assert "boundary_shift" not in table
