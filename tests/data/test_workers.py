"""Tests of dpo.data.workers: other processes give the same results as this one."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from dpo.data import workers
from dpo.data.config import DataConfig
from dpo.data.pipeline import PreparedData, prepare
from dpo.data.rendering.tokenization import load_tokenizer
from dpo.errors import AdapterError, DataError
from tests.builders import ROOT
from tests.conftest import WriteRows

ADAPTER = '''"""Votes."""
import os
from pathlib import Path
from dpo.adapters.base import Adapter
from dpo.records import Message, Preference
EXAMPLES = ()
def convert(row, options):
    if row["kill"]:
        os.kill(os.getpid(), 9)
    if row["q"] == "raise":
        raise RuntimeError("out of votes")
    if row["wrong"]:
        return ["no preference"]
    return [Preference(prompt=(Message(role="user", content=row["q"]),), chosen=f"{os.getpid()}", rejected="Oxygen.")]
ADAPTER = Adapter(name="votes", hub_id=None, split="", columns=("q",), convert=convert, examples=EXAMPLES)
'''
NUM_ROWS = 3000
"""Enough rows for other processes to be started."""


def votes(**special: int) -> list[dict[str, object]]:
    return [
        {"q": f"question {i}", "kill": i == special.get("kill"), "wrong": i == special.get("wrong")}
        for i in range(NUM_ROWS)
    ]


@pytest.fixture
def run(chatml_folder: Path, write_rows: WriteRows, tmp_path: Path):
    def call(rows: list[dict[str, object]], **values: object) -> PreparedData:
        (tmp_path / "votes.py").write_text(ADAPTER)
        flags = {"datasets": (f"votes={write_rows(rows)}",), "adapter": (str(tmp_path / "votes.py"),)} | values
        return prepare(DataConfig.from_flags(flags), load_tokenizer(str(chatml_folder)), progress=False)

    return call


def test_rows_keep_their_order_in_other_processes(run) -> None:
    data = run(votes(), num_proc=2)
    assert data.train["row"][:] == list(range(NUM_ROWS))
    assert str(os.getpid()) not in data.train["chosen"][:]


def test_with_num_proc_1_rows_are_converted_in_this_process(run) -> None:
    assert set(run(votes(), num_proc=1).train["chosen"][:]) == {str(os.getpid())}


def test_few_rows_are_converted_in_this_process(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "ProcessPoolExecutor", lambda *a: pytest.fail("a pool was started"))
    assert len(run(votes()[:2000], num_proc=2).train) == 2000


def test_the_report_does_not_depend_on_the_number_of_processes(
    chatml_folder: Path, write_rows: WriteRows, own_cache
) -> None:
    rows = [
        {"prompt": f"q {i}", "chosen": "a" * (i % 5), "rejected": "<|im_end|>" if i % 7 == 0 else "b"}
        for i in range(4000)
    ]
    spec = f"triplets={write_rows(rows)}"
    results = []
    for number in (1, 2):
        config = DataConfig.from_flags({"datasets": (spec,), "num_proc": number, "validation_split": 0.1})
        os.environ["DPO_CACHE"] = str(own_cache / str(number))
        data = prepare(config, load_tokenizer(str(chatml_folder)), progress=False)
        results.append(
            (json.loads((data.folder / "data_report.json").read_text()), data.train.to_list(), data.eval.to_list())
        )
    assert results[0] == results[1]


def test_an_error_in_another_process_is_raised_here(run) -> None:
    with pytest.raises(AdapterError, match="'votes' returned str, expected Preference or Drop"):
        run(votes(wrong=2700), num_proc=2)


def test_an_error_of_an_adapter_names_the_row(run) -> None:
    rows = [*votes()[:7], {"q": "raise", "kill": False, "wrong": False}]
    with pytest.raises(AdapterError, match=r"rows\.jsonl, row 7: adapter 'votes' raised RuntimeError: out of votes"):
        run(rows)


def test_the_processes_end_if_the_parent_is_killed(chatml_folder: Path, write_rows: WriteRows, tmp_path: Path) -> None:
    rows = [{"prompt": f"question {i}", "chosen": "a " * 500, "rejected": "b"} for i in range(20_000)]
    command = [sys.executable, "-m", "dpo", "prepare", "--model_name_or_path", str(chatml_folder), "--num_proc", "2"]
    command += ["--datasets", f"triplets={write_rows(rows)}", "--output", str(tmp_path / "out")]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"DPO_CACHE": str(tmp_path)})
    started = psutil.Process(process.pid)
    wait_until(lambda: len(started.children(recursive=True)) >= 3)  # the fork server and two processes that convert
    children = started.children(recursive=True)
    process.kill()
    process.wait()
    wait_until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))


@pytest.mark.parametrize("start", [["-m", "dpo"], [str(ROOT / "dpo" / "__main__.py")]], ids=["module", "path"])
def test_the_processes_import_the_program_anew_without_torch(
    start: list[str], chatml_folder: Path, write_rows: WriteRows, tmp_path: Path
) -> None:
    adapter = ADAPTER.replace('row["q"] == "raise"', '"torch" in __import__("sys").modules')
    (tmp_path / "votes.py").write_text(adapter)
    command = [sys.executable, *start, "prepare", "--model_name_or_path", str(chatml_folder), "--num_proc", "2"]
    command += ["--datasets", f"votes={write_rows(votes())}", "--adapter", str(tmp_path / "votes.py")]
    command += ["--output", str(tmp_path / "out"), "--format", "jsonl"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    chosen = {json.loads(line)["chosen"] for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()}
    assert 1 <= len(chosen) <= 2 and str(os.getpid()) not in chosen
    assert done.stdout.endswith(f"{NUM_ROWS:,} pairs in train\n"), "each row was prepared once"


def wait_until(done: Callable[[], bool], timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.1)


def test_a_killed_process_is_an_error(run) -> None:
    with pytest.raises(DataError, match=r"was killed or could not start\.\n  If it was killed, the usual cause is too"):
        run(votes(kill=2700), num_proc=2)
