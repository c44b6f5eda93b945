"""Tests of dpo.data.report: the data report."""

from collections import Counter
from pathlib import Path

import pytest

from dpo.data.report import DataReport, SourceReport
from dpo.errors import DataError
from dpo.records import Drop


def report() -> DataReport:
    """Build a report of two sources. First: 1,200 rows kept, 1 tie, 1 too_long. Second: 2 rows kept, 1 tie."""
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


def test_kept_and_dropped_rows_are_counted_for_each_source_and_in_total() -> None:
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


def test_pairs_that_were_kept_but_not_written_are_an_error() -> None:
    account = report()
    account.pairs["eval"] -= 1
    with pytest.raises(DataError, match=r"1202 pairs kept, but .* written"):
        account.check()


def test_the_total_does_not_change_its_sources() -> None:
    account = report()
    account.total()
    account.total()
    assert account.sources["orca"].dropped == Counter(tie=1)
    assert account.total().dropped.total() == 3


def test_three_rows_are_named_for_each_reason() -> None:
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
        "boundary_shift (1 of the kept pairs): the answer is tokenized separately, because one token would span it and "
        "the prompt",
        "Größe ½",
    ]


def test_the_report_of_stage_sft_speaks_of_answers(tmp_path: Path) -> None:
    account = report()
    account.stage = "sft"
    assert account.table().splitlines()[5:7] == [
        "answers: 1,100 train, 102 eval",
        "boundary_shift (1 of the kept answers): the answer is tokenized separately, because one token would span it "
        "and the prompt",
    ]
    account.save(tmp_path / "report.json")
    assert DataReport.load(tmp_path / "report.json").stage == "sft"


def test_a_source_without_drops_shows_none() -> None:
    account = SourceReport(raw_rows=1)
    account.enter()
    account.keep()
    table = DataReport(sources={"a": account}, pairs={"train": 1}).table()
    assert "a          1     1  none" in table.splitlines()
    assert "boundary_shift" not in table
