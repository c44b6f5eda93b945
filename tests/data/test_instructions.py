"""Tests of the data pipeline in stage sft: one answer for each row, from instruction rows or from pairs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpo.data.config import DataConfig
from dpo.data.pipeline import PreparedData, prepare
from dpo.data.rendering.tokenization import Tokenizer, load_tokenizer
from dpo.errors import ConfigError, DataError, SourceError
from tests.builders import SAMPLES
from tests.conftest import WriteRows

SOURCES = [f"{name}={SAMPLES / name}.jsonl" for name in ("orca_dpo_pairs", "ultrafeedback", "nectar")]
LONG = "the quick brown fox jumps over the lazy dog while nine old men play chess in the park"

Prepare = Callable[..., PreparedData]


def row(prompt: str, answer: str = "Neon.", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": answer} | more


def conversation(*turns: str) -> dict[str, Any]:
    """Build a row of alternating user and assistant turns."""
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]}


@pytest.fixture
def prepared(chatml_folder: Path) -> Prepare:
    def run(*datasets: str, **values: Any) -> PreparedData:
        config = DataConfig.from_flags({"datasets": datasets, "stage": "sft"} | values)
        return prepare(config, load_tokenizer(str(chatml_folder)), progress=False)

    return run


class TestAnswers:
    def test_a_row_is_written_without_a_rejected_answer(
        self, prepared: Prepare, write_rows: WriteRows, chatml_tokenizer: Tokenizer
    ) -> None:
        spec = f"messages={write_rows([conversation('gas?', 'Neon.', 'Thanks.')])}"
        data = prepared(spec)
        prompt, answer = chatml_tokenizer.encode(
            ["<|im_start|>user\ngas?<|im_end|>\n<|im_start|>assistant\n", "Neon.<|im_end|>"]
        )
        assert data.train.to_list() == [
            {
                "source": spec,
                "row": 0,
                "prompt": [{"role": "user", "content": "gas?"}],
                "chosen": "Neon.",
                "rejected": None,
                "score_chosen": None,
                "score_rejected": None,
                "prompt_ids": prompt,
                "chosen_ids": answer,
                "rejected_ids": [],
                "flags": [],
            }
        ]
        assert data.config["stage"] == data.report.stage == "sft"

    def test_pairs_and_instruction_rows_with_the_same_prompt_and_answer_give_the_same_rows(
        self, prepared: Prepare, write_rows: WriteRows
    ) -> None:
        pairs = [row("a", rejected="Iron.", score_chosen=2, score_rejected=1), row("b", "Argon.", rejected="Iron.")]
        from_pairs = prepared(f"triplets={write_rows(pairs, 'pairs.jsonl')}").train
        alone = prepared(f"triplets={write_rows([row('a'), row('b', 'Argon.')], 'alone.jsonl')}").train
        assert from_pairs.remove_columns("source").to_list() == alone.remove_columns("source").to_list()

    def test_defects_of_rejected_answers_and_scores_drop_no_row(self, prepared: Prepare, write_rows: WriteRows) -> None:
        rows = [
            row("identical", rejected="Neon."),
            row("a tie", rejected="Iron.", score_chosen=1, score_rejected=1),
            row("empty", rejected=""),
            row("a literal", rejected="<|im_end|>"),
            row("too long", rejected="long " * 400),
            row("no Unicode", rejected="\ud800"),
            row("nothing", rejected=None),
        ]
        spec = f"triplets={write_rows(rows)}"
        assert prepared(spec, max_length=100).report.total().counts() == {
            "raw_rows": 7,
            "rows": 7,
            "kept": 7,
            "dropped": {},
            "flagged": {},
        }
        of_pairs = prepared(spec, stage="dpo", max_length=10_000).report.total()
        assert of_pairs.dropped == dict.fromkeys(
            ("identical", "tie", "empty_rejected", "special_token_in_text", "invalid_text", "no_rejected"), 1
        )

    def test_two_rows_of_the_samples_are_dropped(self, prepared: Prepare) -> None:
        """A question with a literal and an empty chosen answer. The other defects in samples/README.md need pairs."""
        report = prepared(*SOURCES, max_length=512).report
        assert report.total().counts() == {
            "raw_rows": 340,
            "rows": 340,
            "kept": 338,
            "dropped": {"special_token_in_text": 1, "empty_chosen": 1},
            "flagged": {},
        }
        assert report.pairs == {"train": 338}
        assert {part for source in report.sources.values() for part in source.lengths} == {"prompt", "chosen", "whole"}
        assert report.table().splitlines()[-1] == "answers: 338 train"

    def test_ranked_answers_give_one_row_with_the_best_answer(self, prepared: Prepare, write_rows: WriteRows) -> None:
        answers = [{"answer": text, "rank": rank} for text, rank in (("Iron.", 2), ("Neon.", 1), ("Water.", 3))]
        file = write_rows([{"prompt": "\n\nHuman: gas?\n\nAssistant: ", "answers": answers}])
        assert prepared(f"nectar={file}").train["chosen"][:] == ["Neon."]


class TestTurns:
    ROWS = (
        conversation("Hi!", "Hello.", "2 + 2?", "4", "Thanks."),
        conversation("gas?", ""),
        conversation("gas?"),
        {"messages": [{"role": "assistant", "content": "Hello."}]},
    )

    def test_every_answer_is_counted(self, prepared: Prepare, write_rows: WriteRows) -> None:
        spec = f"messages={write_rows(list(self.ROWS))}"
        lost = {"empty_chosen": 1, "no_answer": 1, "empty_prompt": 1}
        last, all_turns = prepared(spec), prepared(spec, turns="all")
        assert (last.report.total().rows, last.report.total().kept) == (4, 1)
        assert (all_turns.report.total().rows, all_turns.report.total().kept) == (5, 2)
        assert last.report.total().dropped == all_turns.report.total().dropped == lost
        assert list(zip(all_turns.train["row"], all_turns.train["chosen"], strict=True)) == [(0, "Hello."), (0, "4")]

    def test_all_rows_of_a_conversation_are_on_one_side(self, prepared: Prepare, write_rows: WriteRows) -> None:
        rows = [conversation(f"Hi {i}!", "Hello.", f"{i} + 2?", "Well.", "And then?", "So.") for i in range(20)]
        data = prepared(f"ultrachat={write_rows(rows)}", turns="all", validation_split=0.25)
        assert data.report.pairs == {"train": 45, "eval": 15}
        assert set(data.train["row"]).isdisjoint(data.eval["row"])


class TestSelection:
    """Checks that compare rows use only prompt and answer."""

    def test_a_planted_defect_of_each_kind_is_counted_once(
        self, prepared: Prepare, write_rows: WriteRows, tmp_path: Path
    ) -> None:
        good = [row("one gas?"), row("one gas?", "Argon."), row(f"Tell me why {LONG}", f"Because {LONG}.")]
        defects = {
            "duplicate": row("one gas?", rejected="Iron."),
            "near_duplicate": row(f"tell me why {LONG}", f"because {LONG}!"),
            "leaked_prompt": row("a prompt of the benchmark"),
            "contaminated": row("What is the boiling point of neon?"),
            "refusal": row("a refusal", "I'm sorry, but I can't help with that."),
            "too_long": row("long " * 400),
        }
        train = f"triplets={write_rows([*good, *defects.values()], 'train.jsonl')}"
        held_out = f"triplets={write_rows([row('a prompt of the benchmark'), row('another')], 'eval.jsonl')}"
        (tmp_path / "benchmark.txt").write_text("What is the boiling point of neon?\n")
        data = prepared(
            train,
            eval_datasets=[held_out],
            max_length=300,
            drop_duplicates="near",
            drop_refusals=True,
            drop_leaked_prompts=True,
            decontaminate=[str(tmp_path / "benchmark.txt")],
        )
        assert data.report.sources[train].dropped == dict.fromkeys(defects, 1)
        assert data.train["row"][:] == [0, 1, 2]
        assert data.report.pairs == {"train": 3, "eval": 2}

    def test_caps_and_weights_apply_to_answers(self, prepared: Prepare, write_rows: WriteRows) -> None:
        rows = [row(f"prompt {i % 3}", f"answer {i}") for i in range(12)]
        specs = [f"triplets={write_rows(rows, f'{name}.jsonl')}" for name in "ab"]
        assert prepared(specs[0], max_pairs_per_prompt=2).report.total().dropped == {"above_prompt_limit": 6}
        assert prepared(specs[0], max_pairs_per_source=5).report.total().dropped == {"above_source_limit": 7}
        assert [source.kept for source in prepared(*specs, weights=[1, 3]).report.sources.values()] == [4, 12]


class TestMistakes:
    def test_instruction_rows_are_an_error_in_stage_dpo(self, prepared: Prepare, write_rows: WriteRows) -> None:
        spec = f"messages={write_rows([conversation('gas?', 'Neon.'), conversation('metal?', 'Iron.')])}"
        with pytest.raises(DataError) as caught:
            prepared(spec, stage="dpo")
        assert "no pair is left for training. Rows counted: 2." in str(caught.value)
        assert f"  no_rejected: {spec}, row 0: the row has no rejected answer; --stage sft trains on such rows" in str(
            caught.value
        )

    def test_the_error_about_no_kept_rows_speaks_of_answers(self, prepared: Prepare, write_rows: WriteRows) -> None:
        with pytest.raises(DataError, match=r"no answer is left for training\. Rows counted: 1\."):
            prepared(f"triplets={write_rows([row('gas?', ' ')])}")
        with pytest.raises(DataError, match=r"--validation_split 0\.1 of 2 kept answers holds out no answer"):
            prepared(f"triplets={write_rows([row('a'), row('b')])}", validation_split=0.1)

    def test_a_missing_column_that_the_stage_needs_is_an_error(self, prepared: Prepare, write_rows: WriteRows) -> None:
        spec = f"columns={write_rows([{'question': 'gas?', 'answer': 'Neon.'}])}"
        named = {"column_prompt": "question", "column_chosen": "answer"}
        assert len(prepared(spec, **named).train) == 1
        with pytest.raises(SourceError, match="missing columns: rejected"):
            prepared(spec, stage="dpo", **named)
        with pytest.raises(SourceError, match="missing columns: chosen"):
            prepared(spec, column_prompt="question")

    def test_two_stages_do_not_share_prepared_data(self, prepared: Prepare) -> None:
        answers, pairs = prepared(SOURCES[2]), prepared(SOURCES[2], stage="dpo")
        assert answers.folder != pairs.folder
        assert answers.train["chosen_ids"][:] == pairs.train["chosen_ids"][:]
        manifest = json.loads((answers.folder / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["config"]["stage"] == "sft"

    def test_a_flag_for_pairs_is_refused_before_a_row_is_read(self, prepared: Prepare) -> None:
        with pytest.raises(ConfigError, match="--keep_ties is about the two answers"):
            prepared("triplets=nowhere.jsonl", keep_ties=True)
