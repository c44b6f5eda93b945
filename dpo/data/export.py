"""Export of prepared data to a folder that the user names."""

__all__ = ["export"]

import json
import shutil
from pathlib import Path

from dpo.data.pipeline import MADE_BY_PREPARE, PreparedData

TEXTS = {
    "dpo": ("prompt", "chosen", "rejected", "score_chosen", "score_rejected", "source", "row"),
    "sft": ("prompt", "chosen", "source", "row"),
}
"""The columns to export as text, with scores and origin, by stage."""


def export(prepared: PreparedData, folder: Path, form: str) -> None:
    """Fill a folder with the pairs, data_report.json and manifest.json.

    Args:
        prepared: The prepared data.
        folder: An empty folder.
        form: arrow for a DatasetDict with token ids; jsonl or parquet for one file per split with the pairs as text.
    """
    if form == "arrow":
        shutil.copytree(prepared.folder, folder, dirs_exist_ok=True)
        splits = [split for split, count in prepared.report.pairs.items() if count]
        (folder / "dataset_dict.json").write_text(json.dumps({"splits": splits}), encoding="utf-8")
        return
    for name in MADE_BY_PREPARE:
        shutil.copyfile(prepared.folder / name, folder / name)
    for split, pairs in (("train", prepared.train), ("eval", prepared.eval)):
        if pairs is None:
            continue
        texts = pairs.select_columns(list(TEXTS[prepared.report.stage]))
        if form == "jsonl":
            texts.to_json(folder / f"{split}.jsonl", force_ascii=False)
        else:
            texts.to_parquet(folder / f"{split}.parquet")
