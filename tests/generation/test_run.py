"""`dpo generate`: every row gives a pair or is counted as dropped, once, even if the run is stopped and resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dpo.cli import main
from dpo.data.report import DataReport
from tests.builders import ROOT
from tests.generation.conftest import save_llama

NUM_ROWS = 13
"""The last row gives no prompt."""
DIES = """
import os, signal, sys
from dpo.cli import main
fsync, calls = os.fsync, 0
def fsync_and_die(descriptor):
    global calls
    fsync(descriptor)
    calls += 1
    if calls == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync_and_die
main(sys.argv[2:])
"""
"""Runs a command, and kills it after so many writes: the settings, then the pairs and the record of each batch."""


@pytest.fixture
def source(write_rows) -> str:
    rows = [
        {"prompt": f"Name {i} noble gases, {'please, ' * (i % 4)}now.", "chosen": f"{i} of them.", "rejected": "-"}
        for i in range(NUM_ROWS - 1)
    ]
    return f"triplets={write_rows([*rows, {'prompt': 'Name a gas.', 'chosen': ' ', 'rejected': '-'}], 'source.jsonl')}"


@pytest.fixture
def argv(source: str, endless_model: Path, tmp_path: Path):
    """A function that builds a command of two rows per batch. By default, its model has an answer to each row."""

    def command(*flags: str, output: str = "rows.jsonl", model: Path = endless_model) -> list[str]:
        files = ["--model", str(model), "--datasets", source, "--output", str(tmp_path / output)]
        return ["generate", *files, "--batch_size", "2", "--max_new_tokens", "30", "--keep_unfinished", *flags]

    return command


def read(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:  # splitlines would also split at characters that an answer may contain
        return [json.loads(line) for line in lines]


def test_every_row_is_a_pair_or_is_counted(argv, source: str, tmp_path: Path, capsys) -> None:
    assert main(argv()) == 0
    pairs = read(tmp_path / "rows.jsonl")
    assert sorted(pair["row"] for pair in pairs) == list(range(NUM_ROWS - 1))
    assert all(pair["source"] == source for pair in pairs)
    assert all(pair["chosen"] == f"{pair['row']} of them." for pair in pairs)
    shown = capsys.readouterr().out
    (line,) = (line for line in shown.splitlines() if line.startswith(source))
    assert line.split()[1:] == ["13", "12", "1", "empty_chosen"]
    assert "pairs: 12 written" in shown
    assert f"{tmp_path / 'rows.jsonl'}: 12 pairs" in shown
    report = DataReport.load(tmp_path / "rows.jsonl.report").total()
    assert (report.rows, report.kept, dict(report.dropped)) == (13, 12, {"empty_chosen": 1})
    assert "tokens/s" in shown


def test_prepare_keeps_what_was_written(argv, model: Path, tmp_path: Path) -> None:
    assert main(argv()) == 0
    triplets, prepared = tmp_path / "rows.jsonl", tmp_path / "prepared"
    flags = ["--datasets", f"triplets={triplets}", "--model_name_or_path", str(model), "--output", str(prepared)]
    assert main(["prepare", *flags]) == 0
    total = DataReport.load(prepared / "data_report.json").total()
    assert (total.rows, total.kept, total.dropped) == (12, 12, Counter())


def test_a_killed_run_is_resumed_without_repeating_or_losing_a_row(argv, tmp_path: Path, capsys) -> None:
    assert main(argv(output="whole.jsonl")) == 0
    table = capsys.readouterr().out.partition("\n\n")[0]
    # The sixth write is the pairs of the third batch: they are on disk, but the batch is not finished yet.
    killed = subprocess.run([sys.executable, "-c", DIES, "6", *argv()], cwd=ROOT, env=os.environ, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    assert len(read(tmp_path / "rows.jsonl")) == 6
    assert (tmp_path / "rows.jsonl.progress").read_text().count("\n") == 1 + 2
    assert main(argv()) == 0
    assert sorted(pair["row"] for pair in read(tmp_path / "rows.jsonl")) == list(range(NUM_ROWS - 1))
    assert capsys.readouterr().out.partition("\n\n")[0] == table
    for name in ("{}.jsonl", "{}.jsonl.progress"):
        assert (tmp_path / name.format("rows")).read_bytes() == (tmp_path / name.format("whole")).read_bytes()


def test_a_finished_file_is_not_changed_and_reported_again(argv, model: Path, tmp_path: Path, capsys) -> None:
    flags = argv("--num_candidates", "2", model=model)
    flags.remove("--keep_unfinished")
    assert main(flags) == 0
    before = (tmp_path / "rows.jsonl").read_bytes()
    first = capsys.readouterr().out.partition("\n\n")[0]
    assert main(flags) == 0
    again = capsys.readouterr().out
    assert again.partition("\n\n")[0] == first
    assert "nothing was left to generate" in again
    assert (tmp_path / "rows.jsonl").read_bytes() == before


def test_a_file_is_not_resumed_with_other_weights(argv, model: Path, tmp_path: Path, capsys) -> None:
    mine = shutil.copytree(model, tmp_path / "mine")
    assert main(argv(model=mine)) == 0
    save_llama(mine, end_score=4.0, seed=1)
    assert main(argv(model=mine)) == 2
    assert f"the state of {mine} was" in capsys.readouterr().err


def test_other_settings_and_other_rows_are_refused_without_overwrite(argv, source: str, tmp_path: Path, capsys) -> None:
    assert main(argv()) == 0
    assert main(argv("--seed", "7")) == 2
    assert "--seed was 42, and is now 7" in capsys.readouterr().err
    before = read(tmp_path / "rows.jsonl")
    assert main(argv("--seed", "7", "--overwrite")) == 0
    after = read(tmp_path / "rows.jsonl")
    assert [pair["row"] for pair in after] == [pair["row"] for pair in before]
    assert [pair["rejected"] for pair in after] != [pair["rejected"] for pair in before]
    assert main(argv("--seed", "7", "--overwrite", "--backend", "vllm")) == 2
    assert "vllm" in capsys.readouterr().err
    assert read(tmp_path / "rows.jsonl") == after
    with Path(source.partition("=")[2]).open("a") as rows:
        rows.write('{"prompt": "One more.", "chosen": "Yes.", "rejected": "-"}\n')
    assert main(argv("--seed", "7")) == 2
    assert f"the state of {source} was" in capsys.readouterr().err


def test_a_row_has_the_same_answer_in_other_batches(argv, tmp_path: Path) -> None:
    assert main(argv()) == 0
    assert main(argv("--batch_size", "5", output="other.jsonl")) == 0
    first, other = ({pair["row"]: pair for pair in read(tmp_path / name)} for name in ("rows.jsonl", "other.jsonl"))
    assert first == other


def test_if_no_pair_is_made_the_data_report_shows_why(argv, silent_model: Path, capsys) -> None:
    assert main(argv(model=silent_model)) == 2
    error = capsys.readouterr().err
    assert "no pair was made from 13 rows" in error
    assert "12 empty_generation, 1 empty_chosen" in error
    assert "docs/reference/reasons.md explains each reason" in error


def test_answers_that_were_cut_off_are_dropped_with_a_hint(argv, capsys) -> None:
    flags = argv()
    flags.remove("--keep_unfinished")
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert "12 unfinished" in error
    assert "within --max_new_tokens 30 (--keep_unfinished" in error


def test_the_best_and_the_worst_are_written_with_their_scores(argv, reward_model: Path, tmp_path: Path) -> None:
    flags = ("--pair", "best_worst", "--num_candidates", "3", "--reward_model", str(reward_model))
    assert main(argv(*flags)) == 0
    pairs = read(tmp_path / "rows.jsonl")
    assert sorted(pair["row"] for pair in pairs) == list(range(NUM_ROWS))
    assert all(pair["score_chosen"] > pair["score_rejected"] for pair in pairs)


def test_a_template_that_the_model_does_not_know_is_refused(argv, capsys) -> None:
    assert main(argv("--template", "llama3")) == 2
    assert "the model's tokenizer lacks <|start_header_id|>" in capsys.readouterr().err


def test_answers_that_leave_no_room_for_a_prompt_are_refused(argv, capsys) -> None:
    assert main(argv("--max_new_tokens", "512")) == 2
    assert "the model's context is 512 tokens" in capsys.readouterr().err


def test_columns_that_no_source_reads_are_refused(argv, capsys) -> None:
    assert main(argv("--column_prompt", "question")) == 2
    assert "--column_prompt is only read by the adapter columns" in capsys.readouterr().err
