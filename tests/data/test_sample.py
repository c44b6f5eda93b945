"""Tests of dpo.data.sample: the first rows of sources, example rows in their place, and the estimated pairs."""

import csv
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from dpo.data.pipeline import prepare
from dpo.data.reading.opening import count_rows
from dpo.data.reading.source import parse_source
from dpo.data.rendering.tokenization import Tokenizer
from dpo.data.sample import NUM_ROWS, read_sample
from dpo.errors import SourceError
from tests.builders import SAMPLES, data_config
from tests.conftest import WriteRows

ROW = {"prompt": "Name a noble gas.", "chosen": "Neon.", "rejected": "Oxygen."}
BROKEN = ROW | {"chosen": ""}


def test_only_the_first_rows_are_converted_and_all_rows_are_counted(
    write_rows: WriteRows, chatml_tokenizer: Tokenizer
) -> None:
    file = write_rows([ROW, BROKEN, BROKEN, ROW] * 100)
    sample = read_sample(data_config([f"triplets={file}"], validation_split=0.25), chatml_tokenizer)
    account = sample.report.sources[f"triplets={file}"]
    assert (account.rows, account.kept, dict(account.dropped)) == (NUM_ROWS, 100, {"empty_chosen": 100})
    assert len(sample.lengths) == 100
    assert sample.num_pairs == 400 * 0.5 * 0.75
    assert sample.notes == []


def test_lengths_are_those_of_the_training_data(write_rows: WriteRows, chatml_tokenizer: Tokenizer) -> None:
    config = data_config([f"triplets={write_rows([ROW])}"])
    (lengths,) = read_sample(config, chatml_tokenizer).lengths
    (pair,) = prepare(config, chatml_tokenizer, progress=False).train
    assert lengths == (len(pair["prompt_ids"]), len(pair["chosen_ids"]), len(pair["rejected_ids"]))


def test_held_out_sources_are_only_in_the_report(write_rows: WriteRows, chatml_tokenizer: Tokenizer) -> None:
    train, held_out = write_rows([ROW] * 3, "train.jsonl"), write_rows([ROW] * 2, "eval.jsonl")
    config = data_config([f"triplets={train}"], eval_datasets=(f"triplets={held_out}",))
    sample = read_sample(config, chatml_tokenizer)
    assert [source.kept for source in sample.report.sources.values()] == [3, 2]
    assert (len(sample.lengths), sample.num_pairs) == (3, 3)


def test_max_pairs_per_source_limits_the_estimated_pairs(write_rows: WriteRows, chatml_tokenizer: Tokenizer) -> None:
    config = data_config([f"triplets={write_rows([ROW] * 300)}"], max_pairs_per_source=7)
    assert read_sample(config, chatml_tokenizer).num_pairs == 7


def test_rows_are_counted_in_every_format(write_rows: WriteRows, tmp_path: Path) -> None:
    rows = [ROW] * 5
    jsonl = write_rows(rows)
    jsonl.write_text(jsonl.read_text() + "\n\n")
    with (tmp_path / "rows.csv").open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(ROW))
        writer.writeheader()
        writer.writerows([ROW | {"prompt": "two\nlines"}] * 6)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW] * 7), tmp_path / "rows.parquet")
    counts = [count_rows(parse_source(f"triplets={tmp_path / f'rows.{form}'}")) for form in ("jsonl", "csv", "parquet")]
    assert counts == [5, 6, 7]
    assert count_rows(parse_source(f"triplets={tmp_path}")) == 18


def test_without_a_tokenizer_four_characters_are_a_token(write_rows: WriteRows) -> None:
    """The prompt: 6 tokens for 22 characters, 3 tokens for 10 characters, 3 control tokens and 1 line break."""
    (lengths,) = read_sample(data_config([f"triplets={write_rows([ROW])}"]), None).lengths
    assert lengths == (13, 2, 3)


@pytest.mark.parametrize("template", ["model", "llama3", "mistral", "zephyr", "hh", "neural_chat"])
def test_every_template_works_without_a_tokenizer(write_rows: WriteRows, template: str) -> None:
    sample = read_sample(data_config([f"triplets={write_rows([ROW] * 2)}"], template=template), None)
    assert sample.report.total().kept == 2


def test_a_hub_data_set_that_cannot_be_loaded_is_replaced_by_examples(chatml_tokenizer: Tokenizer) -> None:
    sample = read_sample(data_config(["ultrafeedback:test_prefs"]), chatml_tokenizer)
    assert sample.notes == [
        "stand-in: HuggingFaceH4/ultrafeedback_binarized cannot be loaded. "
        "The example rows of ultrafeedback are used instead."
    ]
    assert (sample.report.total().rows, sample.report.total().kept) == (1, 1)
    assert sample.num_pairs is None


def test_rows_of_an_earlier_stage_are_replaced_by_examples_until_they_exist(
    write_rows: WriteRows, chatml_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    coming = str(tmp_path / "made.jsonl")
    config = data_config([f"triplets={coming}@0.5"])
    sample = read_sample(config, chatml_tokenizer, not_there_yet=[coming])
    assert sample.notes == [f"stand-in: {coming} does not exist yet. The example rows of triplets are used instead."]
    write_rows([ROW] * 100, "made.jsonl")
    sample = read_sample(config, chatml_tokenizer, not_there_yet=[coming])
    assert sample.notes == []
    assert sample.report.total().kept == 50


def test_a_missing_file_that_no_stage_writes_is_an_error(chatml_tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no file or folder"):
        read_sample(data_config([f"triplets={tmp_path}/none.jsonl"]), chatml_tokenizer)


def test_all_pairs_of_a_prepared_folder_are_counted(chatml_tokenizer: Tokenizer) -> None:
    source = f"nectar={SAMPLES / 'nectar.jsonl'}"
    prepared = prepare(data_config([source], validation_split=0.2), chatml_tokenizer, progress=False)
    config = data_config([], prepared=str(prepared.folder))
    for tokenizer in (chatml_tokenizer, None):
        sample = read_sample(config, tokenizer)
        assert sample.num_pairs == len(sample.lengths) == len(prepared.train)
        assert sample.report.total().rows == 91
