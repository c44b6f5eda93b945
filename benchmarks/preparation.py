"""Rows a second from raw rows to token ids: ours, TRL's preparation, and the Rust tokenizer alone on the same text.

    python benchmarks/preparation.py --datasets hh_rlhf=rows.jsonl --repeat 40

TRL is given messages, so that reading the data set's own schema costs it nothing; ours reads, converts, checks,
encodes, filters, counts and writes. The tokenizer alone is given each prompt and answer once, in one batch on all
cores.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dpo.data.config import DataConfig  # noqa: E402 - the checkout is found first
from dpo.data.pipeline import PreparedData, prepare  # noqa: E402
from dpo.data.source import open_source, parse_source  # noqa: E402
from dpo.data.tokenization import load_tokenizer  # noqa: E402
from dpo.embedded import EMBEDDED, find_model  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--datasets", nargs=1, default=[f"nectar={ROOT}/samples/nectar.jsonl"])
    parser.add_argument("--repeat", type=int, default=40, help="Times that the rows are read, one behind the other.")
    options = parser.parse_args()
    model = find_model(options.model)
    tokenizer = load_tokenizer(model)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"DPO_CACHE": folder, "HF_DATASETS_CACHE": folder}
        source = parse_source(options.datasets[0])
        raw = [row for _, row in open_source(source)] * options.repeat
        rows = Path(folder) / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in raw), encoding="utf-8")
        config = DataConfig(datasets=(f"{source.adapter.name}={rows}",), max_length=2**20)
        seconds, prepared = timed(lambda: prepare(config, tokenizer, progress=False))
        report("ours", len(raw), seconds)
        texts = texts_of(prepared)
        seconds, _ = timed(lambda: tokenizer.backend.encode_batch(texts, add_special_tokens=False))
        report("tokenizer alone", len(prepared.train), seconds)
        dataset = as_messages(prepared, Path(folder) / "messages.jsonl")
        for processes in (1, len(os.sched_getaffinity(0))):
            seconds, _ = timed(lambda processes=processes: prepare_as_trl(dataset, model, processes))  # type: ignore[misc]
            report(f"TRL, num_proc={processes}", len(dataset), seconds)


def texts_of(prepared: PreparedData) -> list[str]:
    """Every prompt and answer once."""
    return [
        text
        for pair in prepared.train.select_columns(["prompt", "chosen", "rejected"])
        for text in ("".join(message["content"] for message in pair["prompt"]), pair["chosen"], pair["rejected"])
    ]


def as_messages(prepared: PreparedData, file: Path) -> Any:
    """The kept pairs in the form that TRL documents for conversations."""
    import datasets

    def turn(pair: dict[str, Any]) -> dict[str, Any]:
        return {
            "prompt": pair["prompt"],
            "chosen": [{"role": "assistant", "content": pair["chosen"]}],
            "rejected": [{"role": "assistant", "content": pair["rejected"]}],
        }

    pairs = prepared.train.select_columns(["prompt", "chosen", "rejected"]).to_list()
    file.write_text("".join(json.dumps(turn(pair)) + "\n" for pair in pairs), encoding="utf-8")
    datasets.disable_caching()  # or the second of TRL's passes would find the first one's result
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
