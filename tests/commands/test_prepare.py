"""`dpo prepare`: what it writes, and which runs can use it."""

import json
from pathlib import Path

import datasets
import pytest

from dpo.cli import main
from dpo.data.config import DataConfig
from dpo.data.pipeline import open_prepared, prepare
from dpo.data.rendering.tokenization import load_tokenizer
from dpo.errors import ConfigError, DataError
from tests.builders import SAMPLES, save_tokenizer, train_byte_level

NECTAR = f"nectar={SAMPLES / 'nectar.jsonl'}"


@pytest.fixture
def run(chatml_folder: Path, tmp_path: Path):
    """Runs the command on the sample rows, and returns its exit code and the folder."""

    def call(*flags: str) -> tuple[int, Path]:
        output = tmp_path / "prepared"
        model = ("--model_name_or_path", str(chatml_folder))
        return main(["prepare", "--datasets", NECTAR, *model, "--output", str(output), *flags]), output

    return call


def test_the_folder_loads_as_a_data_set_with_its_report_and_manifest(run, capsys) -> None:
    code, output = run("--validation_split", "0.2")
    assert code == 0
    pairs = datasets.load_from_disk(str(output))
    report = json.loads((output / "data_report.json").read_text())
    assert {split: len(rows) for split, rows in pairs.items()} == report["pairs"]
    assert {"source", "row", "prompt_ids", "chosen_ids", "rejected_ids"} <= set(pairs["train"].column_names)
    assert {"tokenizer", "template", "sources", "config", "code"} <= set(
        json.loads((output / "manifest.json").read_text())
    )
    shown = capsys.readouterr().out
    assert f"{output}: {report['pairs']['train']} pairs in train, {report['pairs']['eval']} pairs in eval" in shown


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_text_formats_are_triplets_that_give_the_same_ids_again(run, form: str, chatml_folder: Path) -> None:
    code, output = run("--format", form)
    assert code == 0
    tokenizer = load_tokenizer(str(chatml_folder))
    before, after = (
        prepare(DataConfig(datasets=(source,)), tokenizer, progress=False).train
        for source in (NECTAR, f"triplets={output / f'train.{form}'}")
    )
    assert before["prompt_ids"] == after["prompt_ids"]
    assert before["chosen_ids"] == after["chosen_ids"]
    assert before["rejected_ids"] == after["rejected_ids"]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_answers_as_text_give_the_same_ids_again(run, form: str, chatml_folder: Path, capsys) -> None:
    code, output = run("--stage", "sft", "--format", form)
    assert code == 0
    assert f"{output}: 91 answers in train" in capsys.readouterr().out
    tokenizer = load_tokenizer(str(chatml_folder))
    before, after = (
        prepare(DataConfig(datasets=(source,), stage="sft"), tokenizer, progress=False).train
        for source in (NECTAR, f"triplets={output / f'train.{form}'}")
    )
    assert after.column_names == before.column_names
    for column in ("prompt_ids", "chosen_ids", "rejected_ids", "rejected"):
        assert before[column][:] == after[column][:]


def test_a_text_format_keeps_the_scores(run) -> None:
    _, output = run("--format", "jsonl")
    rows = [json.loads(line) for line in (output / "train.jsonl").read_text().splitlines()]
    assert rows[0]["score_chosen"] > rows[0]["score_rejected"]


def test_a_folder_that_exists_is_replaced_only_when_asked(run, capsys) -> None:
    assert run()[0] == 0
    assert run("--max_length", "1000")[0] == 2
    assert "--overwrite" in capsys.readouterr().err
    code, output = run("--max_length", "1000", "--overwrite")
    assert code == 0
    assert json.loads((output / "manifest.json").read_text())["config"]["max_length"] == 1000


def test_a_prepared_folder_opens_only_with_its_own_tokenizer(run, chatml_folder: Path, tmp_path: Path) -> None:
    _, output = run("--validation_split", "0.2")
    prepared = open_prepared(output, load_tokenizer(str(chatml_folder)))
    assert len(prepared.train) + len(prepared.eval) == prepared.report.total().kept
    other = save_tokenizer(tmp_path / "other", train_byte_level(["<|im_end|>", "<|im_start|>"]), eos_token="<|im_end|>")
    with pytest.raises(DataError, match="of another tokenizer"):
        open_prepared(output, load_tokenizer(str(other)))


def test_a_prepared_folder_opens_only_for_its_own_stage(run, chatml_folder: Path) -> None:
    tokenizer = load_tokenizer(str(chatml_folder))
    _, output = run("--stage", "sft")
    assert set(map(len, open_prepared(output, tokenizer, stage="sft").train["rejected_ids"])) == {0}
    with pytest.raises(DataError, match=r"with --stage sft, but this is --stage dpo\.\n  Pass --stage sft, or"):
        open_prepared(output, tokenizer)
    run("--overwrite")
    with pytest.raises(DataError, match=r"with --stage dpo, but this is --stage sft\.\n  Pass --stage dpo, or"):
        open_prepared(output, tokenizer, stage="sft")


def test_a_folder_in_a_text_format_is_refused_with_advice(run, chatml_folder: Path) -> None:
    _, output = run("--format", "jsonl")
    with pytest.raises(DataError, match=f"--format arrow, .*triplets={output}/train.jsonl"):
        open_prepared(output, load_tokenizer(str(chatml_folder)))


@pytest.mark.parametrize("damage", ["no manifest", "another manifest", "no report", "no pairs"])
def test_a_damaged_prepared_folder_is_refused(run, damage: str, chatml_folder: Path) -> None:
    _, output = run()
    if damage == "no manifest":
        (output / "manifest.json").unlink()
    elif damage == "another manifest":
        (output / "manifest.json").write_text("{}")
    elif damage == "no report":
        (output / "data_report.json").unlink()
    elif damage == "no pairs":
        (output / "train" / "state.json").write_text("{")
    with pytest.raises(DataError, match="`dpo prepare --output"):
        open_prepared(output, load_tokenizer(str(chatml_folder)))


def test_only_a_prepared_folder_is_overwritten(run, tmp_path: Path, capsys) -> None:
    output = tmp_path / "prepared"
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    assert run("--overwrite")[0] == 2
    assert f"{output} was not made by `dpo prepare`, so it was not replaced" in capsys.readouterr().err
    assert (output / "thesis.txt").read_text() == "years of work"


def test_an_output_that_cannot_be_made_is_refused_before_the_work(run, tmp_path: Path, capsys) -> None:
    (tmp_path / "prepared").write_text("a file")
    assert run()[0] == 2
    assert "is a file, expected a folder" in capsys.readouterr().err


def test_a_misspelled_flag_names_what_it_resembles(run, capsys) -> None:
    assert run("--max_lenght", "7")[0] == 2
    assert "Did you mean --max_length" in capsys.readouterr().err


def test_flags_that_the_prepared_folder_has_fixed_are_refused(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert DataConfig.from_flags({"prepared": folder, "seed": 7}).prepared == folder
    assert DataConfig.from_flags({"prepared": folder, "stage": "sft"}).stage == "sft"
    with pytest.raises(ConfigError, match="there is no such folder"):
        DataConfig.from_flags({"prepared": f"{folder}/none"})
    for flag in ({"datasets": ["nectar"]}, {"max_length": 7}, {"template": "zephyr"}, {"keep_ties": True}):
        with pytest.raises(ConfigError, match=f"--{next(iter(flag))} cannot be combined with --prepared"):
            DataConfig.from_flags({"prepared": folder} | flag)
