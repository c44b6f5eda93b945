"""Held-out pairs as a model's token ids, from sources or from a prepared folder."""

from pathlib import Path

import pytest

from dpo.cli import main
from dpo.data.config import DataConfig
from dpo.data.rendering.tokenization import Tokenizer, load_tokenizer
from dpo.errors import DataError, ModelError
from dpo.evaluation.held_out import check_same_tokens, load_held_out
from tests.builders import SAMPLES, save_tokenizer, train_byte_level

NECTAR = f"nectar={SAMPLES / 'nectar.jsonl'}"


@pytest.fixture
def prepared(chatml_folder: Path, tmp_path: Path):
    """Prepares the sample rows into a folder."""

    def run(*flags: str) -> DataConfig:
        folder = str(tmp_path / "prepared")
        model = ("--model_name_or_path", str(chatml_folder))
        assert main(["prepare", "--datasets", NECTAR, *model, "--output", folder, *flags]) == 0
        return DataConfig.from_flags({"prepared": folder})

    return run


def test_a_limit_takes_the_first_kept_pairs(chatml_tokenizer: Tokenizer) -> None:
    config = DataConfig.from_flags({"datasets": (NECTAR,)})
    every = load_held_out(config, chatml_tokenizer, limit=None, progress=False)
    some = load_held_out(config, chatml_tokenizer, limit=5, progress=False)
    assert len(every.pairs) == every.report.total().kept == 91
    assert some.pairs.to_list() == every.pairs.to_list()[:5]
    assert len(load_held_out(config, chatml_tokenizer, limit=500, progress=False).pairs) == 91


def test_a_prepared_folder_gives_its_held_out_pairs(prepared, chatml_folder: Path, tmp_path: Path) -> None:
    config = prepared("--validation_split", "0.2")
    found = load_held_out(config, load_tokenizer(str(chatml_folder)), limit=None, progress=False)
    assert 0 < len(found.pairs) == found.report.pairs["eval"]
    trained = save_tokenizer(
        tmp_path / "trained",
        train_byte_level(["<|im_start|>", "<|im_end|>"]),
        eos_token="<|im_end|>",
        chat_template="x",
    )
    with_its_template = load_held_out(config, load_tokenizer(str(trained)), limit=None, progress=False)
    assert with_its_template.pairs.to_list() == found.pairs.to_list()


def test_a_prepared_folder_of_another_tokenizer_or_without_held_out_pairs_is_refused(
    prepared, chatml_folder: Path, tmp_path: Path
) -> None:
    other = save_tokenizer(tmp_path / "other", train_byte_level(["<|im_end|>", "<|im_start|>"]), eos_token="<|im_end|>")
    config = prepared("--validation_split", "0.2")
    with pytest.raises(DataError, match="made by another tokenizer"):
        load_held_out(config, load_tokenizer(str(other)), limit=None, progress=False)
    lacking = load_tokenizer(str(save_tokenizer(tmp_path / "lacking", train_byte_level(["</s>"]), eos_token="</s>")))
    with pytest.raises(DataError, match="made by another tokenizer"):
        load_held_out(config, lacking, limit=None, progress=False)
    config = prepared("--overwrite")
    with pytest.raises(DataError, match="the folder contains no held-out pairs"):
        load_held_out(config, load_tokenizer(str(chatml_folder)), limit=None, progress=False)


def test_a_folder_of_answers_is_refused(prepared, chatml_tokenizer: Tokenizer) -> None:
    config = prepared("--stage", "sft", "--validation_split", "0.2")
    with pytest.raises(
        DataError, match="expected pairs, found rows with one answer, prepared with --stage sft"
    ) as caught:
        load_held_out(config, chatml_tokenizer, limit=None, progress=False)
    assert str(caught.value).startswith(f"--prepared {config.prepared}: ")


def test_a_folder_that_was_not_prepared_is_refused(chatml_tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`dpo prepare --output"):
        load_held_out(DataConfig(prepared=str(tmp_path)), chatml_tokenizer, limit=None, progress=False)


def test_a_reference_with_other_tokens_is_refused(chatml_tokenizer: Tokenizer, llama3_tokenizer: Tokenizer) -> None:
    held_out = load_held_out(DataConfig(datasets=(NECTAR,)), chatml_tokenizer, limit=1, progress=False)
    check_same_tokens(held_out, chatml_tokenizer, chatml_tokenizer, ("a", "b"))
    with pytest.raises(ModelError, match=r"--reference b: its token 0 is '<\|begin_of_text\|>', but for a this id is"):
        check_same_tokens(held_out, chatml_tokenizer, llama3_tokenizer, ("a", "b"))
