"""Measures rows per second from raw rows to token ids: this project, TRL, and the Rust tokenizer alone.

    python benchmarks/preparation.py --datasets hh_rlhf=rows.jsonl --repeat 40
    python benchmarks/preparation.py --datasets hh_rlhf=rows.jsonl --repeat 4000 --memory

All three process the same text. This project reads, converts, checks, encodes, filters, counts and writes the rows. TRL
starts from messages, so it does not spend time on the schema of the data set. The tokenizer alone encodes each prompt
and answer once, in one batch on all cores. With --memory, only this project runs, and the memory of all its processes
is measured.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dpo.data.config import DataConfig  # noqa: E402 - imported after sys.path names the checkout
from dpo.data.pipeline import PreparedData, prepare  # noqa: E402
from dpo.data.reading.opening import open_source  # noqa: E402
from dpo.data.reading.source import parse_source  # noqa: E402
from dpo.data.rendering.tokenization import load_tokenizer  # noqa: E402
from dpo.models.embedded import EMBEDDED, find_model  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--datasets", nargs=1, default=[f"nectar={ROOT}/samples/nectar.jsonl"])
    parser.add_argument("--repeat", type=int, default=40, help="Number of copies of the rows to read.")
    parser.add_argument("--memory", action="store_true", help="Measure memory, and leave out the comparison.")
    options = parser.parse_args()
    model = find_model(options.model)
    tokenizer = load_tokenizer(model)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"DPO_CACHE": folder, "HF_DATASETS_CACHE": folder}
        source = parse_source(options.datasets[0])
        raw = [row for _, row in open_source(source)]
        num_rows = len(raw) * options.repeat
        rows = Path(folder) / "rows.jsonl"
        with rows.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(with_mark(row, str(i))) + "\n" for i in range(options.repeat) for row in raw)
        config = DataConfig(datasets=(f"{source.adapter.name}={rows}",), max_length=2**20)
        with Memory() as memory:
            seconds, prepared = timed(lambda: prepare(config, tokenizer, progress=options.memory))
        report("ours", num_rows, seconds)
        if options.memory:
            print(f"{len(prepared.train):,} pairs; {memory}")
            return
        texts = texts_of(prepared)
        seconds, _ = timed(lambda: tokenizer.backend.encode_batch(texts, add_special_tokens=False))
        report("tokenizer alone", len(prepared.train), seconds)
        dataset = as_messages(prepared, Path(folder) / "messages.jsonl")
        processes = len(os.sched_getaffinity(0))
        seconds, _ = timed(lambda: prepare_as_trl(dataset, model, processes))
        report(f"TRL, num_proc={processes}", len(dataset), seconds)


def with_mark(value: Any, mark: str) -> Any:
    """Insert a word near the beginning of each text of a row, so that all copies of the row differ."""
    if isinstance(value, dict):
        return {key: with_mark(item, mark) for key, item in value.items()}
    if isinstance(value, list):
        return [with_mark(item, mark) for item in value]
    if isinstance(value, str) and " " in value[10:]:
        place = value.index(" ", 10)
        return f"{value[:place]} {mark}{value[place:]}"
    return value


class Memory:
    """Measures the memory of this process and its children, without and with mapped files."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.start = self.peak = self.now()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def now(self) -> tuple[int, int]:
        """Return the bytes without mapped files, and the bytes in all."""
        own = resident = 0
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                memory = process.memory_info()
                own, resident = own + memory.rss - memory.shared, resident + memory.rss
        return own, resident

    def watch(self) -> None:
        while not self.done.wait(0.5):
            own, resident = self.now()
            self.peak = (max(self.peak[0], own), max(self.peak[1], resident))

    def __enter__(self) -> "Memory":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.thread.join()

    def __str__(self) -> str:
        own, resident = ((peak - start) / 2**30 for peak, start in zip(self.peak, self.start, strict=True))
        return f"memory above the start: {own:.2f} GiB without mapped files, {resident:.2f} GiB with mapped files"


def texts_of(prepared: PreparedData) -> list[str]:
    """Return every prompt and answer once."""
    return [
        text
        for pair in prepared.train.select_columns(["prompt", "chosen", "rejected"])
        for text in ("".join(message["content"] for message in pair["prompt"]), pair["chosen"], pair["rejected"])
    ]


def as_messages(prepared: PreparedData, file: Path) -> Any:
    """Load the kept pairs in the format that TRL documents for conversations."""
    import datasets

    def turn(pair: dict[str, Any]) -> dict[str, Any]:
        return {
            "prompt": pair["prompt"],
            "chosen": [{"role": "assistant", "content": pair["chosen"]}],
            "rejected": [{"role": "assistant", "content": pair["rejected"]}],
        }

    pairs = prepared.train.select_columns(["prompt", "chosen", "rejected"]).to_list()
    file.write_text("".join(json.dumps(turn(pair)) + "\n" for pair in pairs), encoding="utf-8")
    datasets.disable_caching()  # otherwise the second of TRL's passes would reuse the result of the first one
    return datasets.load_dataset("json", data_files=str(file), split="train")


def prepare_as_trl(dataset: Any, model: str, processes: int) -> Any:
    from transformers import AutoTokenizer
    from trl import DPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(model)
    arguments = SimpleNamespace(dataset_num_proc=processes, max_length=None)
    return DPOTrainer._prepare_dataset(SimpleNamespace(_tokenizer=tokenizer), dataset, tokenizer, arguments, "train")


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def report(name: str, rows: int, seconds: float) -> None:
    print(f"{name:<18}{rows:>9,} rows{seconds:>8.1f} s{rows / seconds:>9,.0f} rows/s", flush=True)


if __name__ == "__main__":
    main()
