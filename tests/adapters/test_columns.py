"""Tests of the columns adapter: any table whose columns the user names."""

from typing import Any

import pytest

from dpo.data.pipeline import prepare
from dpo.data.reading.opening import open_source
from dpo.data.reading.source import parse_source
from dpo.data.rendering.tokenization import Tokenizer
from dpo.errors import ConfigError, SourceError
from dpo.records import Preference
from tests.adapters.rows import convert, reasons
from tests.builders import SAMPLES, data_config, instruction, pair, system, user
from tests.conftest import WriteRows

ROW = {"question": "Name a noble gas.", "good": "Neon.", "bad": "Oxygen.", "votes": "7", "id": 3}
NAMES = {"column_prompt": "question", "column_chosen": "good", "column_rejected": "bad"}


def test_columns_are_read_by_the_user_s_names() -> None:
    assert convert("columns", ROW, **NAMES) == [pair("Name a noble gas.", "Neon.", "Oxygen.")]


def test_columns_without_a_flag_keep_their_default_names() -> None:
    row: dict[str, Any] = {"prompt": "Name a noble gas.", "chosen": "Neon.", "bad": "Oxygen."}
    assert convert("columns", row, column_rejected="bad") == [pair("Name a noble gas.", "Neon.", "Oxygen.")]


def test_system_messages_and_scores_can_be_named_too() -> None:
    row = ROW | {"rules": "Be brief.", "less": 2}
    more = {"column_system": "rules", "column_score_chosen": "votes", "column_score_rejected": "less"}
    assert convert("columns", row, **NAMES, **more) == [
        Preference(
            prompt=(system("Be brief."), user("Name a noble gas.")),
            chosen="Neon.",
            rejected="Oxygen.",
            score_chosen=7,
            score_rejected=2,
        )
    ]


def test_a_missing_column_is_reported_by_the_user_s_name(write_rows: WriteRows) -> None:
    source = parse_source(f"columns={write_rows([ROW])}")
    expected = r"missing columns: chosen, rejected[\s\S]*Expected by the adapter 'columns': question, chosen, reje"
    with pytest.raises(SourceError, match=expected):
        list(open_source(source, {"prompt": "question"}))
    with pytest.raises(SourceError, match="--column_prompt NAME"):
        list(open_source(source))
    assert len(list(open_source(source, {"prompt": "question", "chosen": "good", "rejected": "bad"}))) == 1


def test_a_misspelled_name_of_an_optional_column_is_an_error(write_rows: WriteRows) -> None:
    """The row's own `system` column must not be used instead."""
    source = parse_source(f"columns={write_rows([ROW | {'system': 'Be long.', 'rules': 'Be brief.'}])}")
    with pytest.raises(SourceError, match="missing columns: ruls"):
        list(open_source(source, {"prompt": "question", "chosen": "good", "rejected": "bad", "system": "ruls"}))


def test_a_row_without_a_named_column_is_malformed_even_if_it_has_the_default_one() -> None:
    row = {"prompt": "Something else.", "good": "Neon.", "bad": "Oxygen."}
    assert reasons("columns", row, **NAMES) == ["malformed_row"]


def test_questions_and_answers_are_instruction_rows(write_rows: WriteRows) -> None:
    row = {"question": "Name a noble gas.", "answer": "Neon."}
    named = {"prompt": "question", "chosen": "answer"}
    assert convert("columns", row, column_prompt="question", column_chosen="answer") == [instruction()]
    source = parse_source(f"columns={write_rows([row])}")
    assert len(list(open_source(source, named, pairs=False))) == 1
    with pytest.raises(
        SourceError, match=r"missing columns: rejected\.[\s\S]*--column_prompt NAME[\s\S]*Pass --stage sft"
    ):
        list(open_source(source, named))
    with pytest.raises(SourceError, match="missing columns: bad") as caught:
        list(open_source(source, named | {"rejected": "bad"}, pairs=False))
    assert "--stage" not in str(caught.value)


def test_a_system_message_that_the_answers_contain_too_is_used_once() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a noble gas."}]
    row = {
        "system": "Be brief.",
        "prompt": "Name a noble gas.",
        "chosen": [*turns, {"role": "assistant", "content": "Neon."}],
        "rejected": [*turns, {"role": "assistant", "content": "Oxygen."}],
    }
    (preference,) = convert("columns", row)
    assert preference.prompt == (system("Be brief."), user("Name a noble gas."))  # type: ignore[union-attr]


def test_column_flags_that_no_source_reads_are_an_error(chatml_tokenizer: Tokenizer) -> None:
    config = data_config([f"nectar={SAMPLES / 'nectar.jsonl'}"], column_prompt="question")
    with pytest.raises(ConfigError, match="--column_prompt is only read by the adapter columns"):
        prepare(config, chatml_tokenizer, progress=False)


def test_a_format_needs_a_file() -> None:
    with pytest.raises(SourceError, match=r"'columns' is a format, not a data set[\s\S]*columns=path/to/rows"):
        parse_source("columns")
