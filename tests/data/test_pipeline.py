"""Tests of dpo.data.pipeline: from sources to token ids on disk, with every row counted."""

import dataclasses
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpo.adapters import find_adapters, get_adapter
from dpo.adapters.base import AdapterOptions
from dpo.data import pipeline
from dpo.data.config import DataConfig
from dpo.data.conversion import convert_row
from dpo.data.malformed import mutate
from dpo.data.pipeline import PreparedData, prepare
from dpo.data.rendering.tokenization import Tokenizer, load_tokenizer
from dpo.errors import AdapterError, ConfigError, DataError, DPOError, SourceError, TemplateError
from dpo.records import Drop, Preference
from tests.builders import SAMPLES, data_config, pair, save_tokenizer, train_byte_level
from tests.conftest import WriteRows

ORCA, ULTRAFEEDBACK, NECTAR = (f"{n}={SAMPLES / n}.jsonl" for n in ("orca_dpo_pairs", "ultrafeedback", "nectar"))

Prepare = Callable[..., PreparedData]


def triplet(prompt: str, chosen: str = "Neon.", rejected: str = "Oxygen.", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected} | more


@pytest.fixture
def prepared(chatml_folder: Path) -> Prepare:
    """Function that prepares data with a chatml tokenizer, which it loads again at each call, as each run does."""

    def run(*datasets: str, **values: Any) -> PreparedData:
        config = DataConfig.from_flags({"datasets": datasets} | values)
        return prepare(config, load_tokenizer(str(chatml_folder)), progress=False)

    return run


def rows_of(data: PreparedData, *splits: str) -> list[tuple[str, int]]:
    """Return (source, row) of every pair in the splits, train first."""
    datasets = [getattr(data, split) for split in splits or ("train", "eval")]
    return [place for d in datasets if d is not None for place in zip(d["source"], d["row"], strict=True)]


class TestSamples:
    """The sample files and the defects that samples/README.md lists."""

    def test_each_planted_defect_is_dropped_and_nothing_else(self, prepared: Prepare) -> None:
        data = prepared(ORCA, ULTRAFEEDBACK, NECTAR, max_length=512, validation_split=0.1)
        sources = {name: report.counts() for name, report in data.report.sources.items()}
        assert sources == {
            ORCA: {
                "raw_rows": 124,
                "rows": 124,
                "kept": 120,
                "dropped": {"identical": 2, "special_token_in_text": 1, "too_long": 1},
                "flagged": {},
            },
            ULTRAFEEDBACK: {
                "raw_rows": 125,
                "rows": 125,
                "kept": 120,
                "dropped": {"tie": 4, "empty_chosen": 1},
                "flagged": {},
            },
            NECTAR: {"raw_rows": 91, "rows": 91, "kept": 91, "dropped": {}, "flagged": {}},
        }
        assert data.report.total().counts() == {
            "raw_rows": 340,
            "rows": 340,
            "kept": 331,
            "dropped": {"tie": 4, "identical": 2, "special_token_in_text": 1, "too_long": 1, "empty_chosen": 1},
            "flagged": {},
        }
        assert data.report.pairs == {"train": 298, "eval": 33}

    def test_the_defects_are_the_rows_listed_in_the_readme(self, prepared: Prepare) -> None:
        data = prepared(ORCA, ULTRAFEEDBACK, max_length=512)
        dropped = {
            (name, reason): [example["row"] for example in examples]
            for name, report in data.report.sources.items()
            for reason, examples in report.examples.items()
        }
        assert dropped == {
            (ORCA, "identical"): [17, 103],
            (ORCA, "special_token_in_text"): [44],
            (ORCA, "too_long"): [71],
            (ULTRAFEEDBACK, "tie"): [9, 38, 80],  # three of the four are named
            (ULTRAFEEDBACK, "empty_chosen"): [57],
        }
        defects = {(ORCA, row) for row in (17, 44, 71, 103)} | {(ULTRAFEEDBACK, row) for row in (9, 38, 57, 80, 112)}
        expected = [(ORCA, row) for row in range(124)] + [(ULTRAFEEDBACK, row) for row in range(125)]
        assert rows_of(data) == [place for place in expected if place not in defects]

    def test_every_kept_row_is_on_exactly_one_side(self, prepared: Prepare) -> None:
        whole = prepared(ORCA, ULTRAFEEDBACK, NECTAR, max_length=512)
        split = prepared(ORCA, ULTRAFEEDBACK, NECTAR, max_length=512, validation_split=0.1)
        places = rows_of(split)
        assert whole.eval is None
        assert len(places) == len(set(places)) == 331
        assert sorted(places) == sorted(rows_of(whole))
        prompts = [{json.dumps(prompt) for prompt in side["prompt"]} for side in (split.train, split.eval)]
        assert prompts[0].isdisjoint(prompts[1])

    def test_keeping_ties_and_literals_keeps_five_more_rows(self, prepared: Prepare) -> None:
        data = prepared(ORCA, ULTRAFEEDBACK, max_length=512, keep_ties=True, special_tokens_in_text="keep")
        assert data.report.total().dropped == {"identical": 2, "too_long": 1, "empty_chosen": 1}
        assert data.report.total().kept == 245

    def test_max_target_length_drops_the_long_answer_as_target_too_long(self, prepared: Prepare) -> None:
        data = prepared(ORCA, max_length=4000, max_target_length=512)
        assert data.report.total().dropped == {"identical": 2, "special_token_in_text": 1, "target_too_long": 1}

    def test_a_literal_in_a_text_is_an_error_on_request(self, prepared: Prepare) -> None:
        with pytest.raises(DataError) as caught:
            prepared(ORCA, special_tokens_in_text="error")
        assert str(caught.value).startswith(f"{ORCA}, row 44: the text contains '<|im_end|>'")


class TestResult:
    def test_a_pair_is_written_with_its_texts_and_ids(
        self, prepared: Prepare, write_rows: WriteRows, chatml_tokenizer: Tokenizer
    ) -> None:
        file = write_rows([triplet("", "a", "b"), triplet("gas?", "Neon ½.", "Oxygen.")])
        data = prepared(f"triplets={file}")
        prompt, chosen, rejected = chatml_tokenizer.encode(
            ["<|im_start|>user\ngas?<|im_end|>\n<|im_start|>assistant\n", "Neon ½.<|im_end|>", "Oxygen.<|im_end|>"]
        )
        assert data.train.to_list() == [
            {
                "source": f"triplets={file}",
                "row": 1,
                "prompt": [{"role": "user", "content": "gas?"}],
                "chosen": "Neon ½.",
                "rejected": "Oxygen.",
                "score_chosen": None,
                "score_rejected": None,
                "prompt_ids": prompt,
                "chosen_ids": chosen,
                "rejected_ids": rejected,
                "flags": [],
            }
        ]

    def test_the_result_contains_what_is_saved_with_the_model(self, prepared: Prepare, bos_folder: Path) -> None:
        data = prepared(NECTAR)
        assert (data.end_of_turn, data.added_tokens) == ("<|im_end|>", ())
        assert "'<|im_start|>'" in data.chat_template
        config = data_config([NECTAR], add_control_tokens=True)
        added = prepare(config, load_tokenizer(str(bos_folder)), progress=False)
        assert added.added_tokens == ("<|im_start|>", "<|im_end|>")
        assert added.chat_template == "{{- bos_token }}" + data.chat_template

    def test_the_report_file_contains_every_count(self, prepared: Prepare, write_rows: WriteRows) -> None:
        rows = [triplet("a"), triplet("b", "same", "same"), triplet(""), triplet("c", "\nNeon."), 7, triplet("a", "x")]
        spec = f"triplets={write_rows(rows)}"
        data = prepared(spec)
        counts = {
            "raw_rows": 6,
            "rows": 6,
            "kept": 3,
            "dropped": {"identical": 1, "empty_prompt": 1, "malformed_row": 1},
            "flagged": {"boundary_shift": 1},
        }
        assert json.loads((data.folder / "data_report.json").read_text(encoding="utf-8")) == {
            "stage": "dpo",
            "total": counts,
            "sources": {spec: counts},
            "pairs": {"train": 3},
            "notes": [],
            "examples": {
                spec: {
                    "identical": [{"row": 1, "detail": "chosen and rejected are the same text"}],
                    "empty_prompt": [{"row": 2, "detail": "the last user turn is empty or white space"}],
                    "malformed_row": [{"row": 4, "detail": "expected an object, found int"}],
                }
            },
            "lengths": {spec: {part: {"16": 3} for part in ("prompt", "chosen", "rejected", "whole")}},
            "within_max_length": {spec: 3},
        }

    def test_only_the_result_is_left_in_the_cache(self, prepared: Prepare, own_cache: Path) -> None:
        data = prepared(NECTAR, validation_split=0.2)
        assert [entry.name for entry in (own_cache / "prepared").iterdir()] == [data.folder.name]
        assert sorted(entry.name for entry in data.folder.iterdir()) == [
            "data_report.json",
            "eval",
            "manifest.json",
            "train",
        ]

    def test_rows_of_several_batches_stay_in_order(self, prepared: Prepare, write_rows: WriteRows) -> None:
        rows = [triplet(f"question {number}", rejected="Neon." if number % 7 == 0 else "A.") for number in range(2500)]
        data = prepared(f"triplets={write_rows(rows)}")
        assert list(data.train["row"]) == [number for number in range(2500) if number % 7]
        assert data.report.total().dropped == {"identical": 358}

    def test_prompts_that_two_sources_share_are_on_one_side(self, prepared: Prepare, write_rows: WriteRows) -> None:
        first = write_rows([triplet(f"question {number}") for number in range(40)], "first.jsonl")
        second = write_rows([triplet(f"question {number}", "a", "b") for number in range(40)], "second.jsonl")
        data = prepared(f"triplets={first}", f"triplets={second}", validation_split=0.25)
        assert data.report.pairs == {"train": 60, "eval": 20}
        train, held_out = ([prompt[-1]["content"] for prompt in side["prompt"]] for side in (data.train, data.eval))
        assert set(train).isdisjoint(held_out)
        assert len(set(held_out)) == 10


class TestCounts:
    def test_each_pair_of_ranked_answers_is_counted(self, prepared: Prepare, write_rows: WriteRows) -> None:
        def ranked(**ranks: int) -> dict[str, Any]:
            answers = [{"answer": text, "rank": rank} for text, rank in ranks.items()]
            return {"prompt": "\n\nHuman: gas?\n\nAssistant: ", "answers": answers}

        file = write_rows([ranked(a=1, b=2, c=3), ranked(a=1, b=2, c=3, d=4), ranked(a=1), ranked(a=1, b=1, c=2)])
        data = prepared(f"nectar={file}", pairing="all")
        assert data.report.total().counts() == {
            "raw_rows": 4,
            "rows": 3 + 6 + 1 + 3,
            "kept": 3 + 6 + 0 + 2,
            "dropped": {"too_few_answers": 1, "tie": 1},
            "flagged": {},
        }
        assert list(data.train["row"]) == [0] * 3 + [1] * 6 + [3] * 2
        assert prepared(f"nectar={file}").report.total().kept == 3

    def test_rows_that_the_fraction_leaves_out_are_counted(self, prepared: Prepare, write_rows: WriteRows) -> None:
        file = write_rows([triplet(f"question {number}") for number in range(400)])
        data = prepared(f"triplets={file}@0.25")
        assert data.report.total().counts() == {
            "raw_rows": 400,
            "rows": 400,
            "kept": 100,
            "dropped": {"not_sampled": 300},
            "flagged": {},
        }
        other = prepared(f"triplets={file}@0.25", seed=7)
        assert len(other.train) == 100
        assert rows_of(other) != rows_of(data)

    @pytest.mark.parametrize("name", find_adapters())
    def test_random_malformed_rows_are_all_counted(self, name: str, prepared: Prepare, write_rows: WriteRows) -> None:
        rng = random.Random(1)
        (first, (given, *_)), *_ = examples = find_adapters()[name].examples
        assert isinstance(given, Preference)
        stage = {"stage": "sft", "turns": "all"} if given.rejected is None else {"pairing": "all"}
        rows = [first] + [mutate(rng.choice(examples)[0], rng) for _ in range(300)]
        file = write_rows([json.loads(json.dumps(row, default=str)) for row in rows])
        data = prepared(f"{name}={file}", max_length=10_000, **stage)
        total = data.report.total()
        assert total.raw_rows == 301
        assert total.rows >= 301
        assert total.rows == total.kept + sum(total.dropped.values())
        assert total.kept == len(data.train)
        assert total.dropped["malformed_row"] > 30
        assert set(data.train["row"]) < set(range(301))


class TestEvalSources:
    def test_only_the_eval_source_is_held_out(self, prepared: Prepare) -> None:
        data = prepared(ORCA, eval_datasets=[NECTAR], max_length=512)
        assert data.report.pairs == {"train": 120, "eval": 91}
        assert set(data.train["source"]) == {ORCA}
        assert set(data.eval["source"]) == {NECTAR}
        assert data.report.notes == []

    def test_prompts_in_both_sources_give_a_warning(self, prepared: Prepare, write_rows: WriteRows) -> None:
        first = write_rows([triplet("a"), triplet("b"), triplet("c")], "first.jsonl")
        second = write_rows([triplet("b", "x", "y"), triplet("c"), triplet("d")], "second.jsonl")
        data = prepared(f"triplets={first}", eval_datasets=[f"triplets={second}"])
        assert data.report.notes == [
            "warning: 2 prompts are in both the training sources and the eval sources. "
            "Pass --drop_leaked_prompts to drop their training pairs."
        ]
        assert data.report.table().endswith(data.report.notes[0])

    def test_an_eval_source_without_kept_pairs_is_an_error(self, prepared: Prepare, write_rows: WriteRows) -> None:
        nothing = write_rows([triplet("a", "same", "same")])
        with pytest.raises(DataError, match="no pair is left for evaluation"):
            prepared(NECTAR, eval_datasets=[f"triplets={nothing}"])


class TestErrors:
    def test_no_kept_pair_is_an_error_with_the_data_report(
        self, prepared: Prepare, write_rows: WriteRows, own_cache: Path
    ) -> None:
        file = write_rows([triplet("a", "same", "same"), triplet("b", "", "x"), triplet("c", "same", "same")])
        with pytest.raises(DataError) as caught:
            prepared(f"triplets={file}", validation_split=0.1)
        message = str(caught.value)
        assert "no pair is left for training. Rows counted: 3." in message
        assert "2 identical, 1 empty_chosen" in message
        assert f"  identical: triplets={file}, row 0: chosen and rejected are the same text" in message
        assert f"  empty_chosen: triplets={file}, row 1: the chosen answer is empty or white space" in message
        assert message.endswith("docs/reference/reasons.md explains each reason.")
        assert list((own_cache / "prepared").iterdir()) == []

    def test_a_validation_split_without_a_held_out_pair_is_an_error(
        self, prepared: Prepare, write_rows: WriteRows
    ) -> None:
        file = write_rows([triplet("a"), triplet("b"), triplet("c")])
        with pytest.raises(DataError, match=r"--validation_split 0\.1 of 3 kept pairs holds out no pair"):
            prepared(f"triplets={file}", validation_split=0.1)

    def test_holding_out_the_only_prompt_is_an_error(self, prepared: Prepare, write_rows: WriteRows) -> None:
        file = write_rows([triplet("a", str(number), "x") for number in range(10)])
        with pytest.raises(DataError, match="no pair is left for training"):
            prepared(f"triplets={file}", validation_split=0.1)

    def test_an_error_in_a_later_row_leaves_nothing_in_the_cache(
        self, prepared: Prepare, tmp_path: Path, own_cache: Path
    ) -> None:
        good = json.dumps(triplet("a"))
        (tmp_path / "rows.jsonl").write_text(f"{good}\n" * 1500 + "{broken\n")
        with pytest.raises(SourceError, match=r"rows\.jsonl, line 1501"):
            prepared(f"triplets={tmp_path / 'rows.jsonl'}")
        assert list((own_cache / "prepared").iterdir()) == []

    @pytest.mark.parametrize(
        ("datasets", "values", "error"),
        [
            ([], {}, ConfigError),
            (["triplets=none.jsonl"], {}, SourceError),
            ([NECTAR], {"template": "none"}, TemplateError),
            ([NECTAR], {"template": "model"}, TemplateError),
            ([NECTAR], {"template": "llama3"}, TemplateError),
            ([f"orca_dpo_pairs={SAMPLES / 'nectar.jsonl'}"], {}, SourceError),
        ],
    )
    def test_a_mistake_of_the_user_is_an_error_of_the_right_kind(
        self, prepared: Prepare, datasets: list[str], values: dict[str, Any], error: type[DPOError]
    ) -> None:
        with pytest.raises(error):
            prepared(*datasets, **values)


class TestReuse:
    """Prepared data is reused if and only if nothing that it depends on has changed."""

    @pytest.fixture
    def spec(self, write_rows: WriteRows) -> str:
        return f"triplets={write_rows([triplet(f'question {number}') for number in range(10)])}"

    @pytest.fixture
    def builds(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """List with one item for each preparation that really runs."""
        real, counted = pipeline.Preparation.run, []

        def run(self: pipeline.Preparation, *arguments: Any) -> None:
            counted.append("built")
            real(self, *arguments)

        monkeypatch.setattr(pipeline.Preparation, "run", run)
        return counted

    def test_a_second_call_reuses_the_result(self, prepared: Prepare, spec: str, builds: list[str]) -> None:
        first, second = prepared(spec, validation_split=0.2), prepared(spec, validation_split=0.2)
        assert builds == ["built"]
        assert second.folder == first.folder
        assert second.report == first.report
        assert second.train.to_list() == first.train.to_list()
        assert second.chat_template == first.chat_template

    def test_a_result_with_added_tokens_is_reused(self, bos_folder: Path, spec: str, builds: list[str]) -> None:
        config = data_config([spec], add_control_tokens=True)
        first, second = (prepare(config, load_tokenizer(str(bos_folder)), progress=False) for _ in range(2))
        assert builds == ["built"]
        assert first.added_tokens == second.added_tokens == ("<|im_start|>", "<|im_end|>")

    @pytest.mark.parametrize(
        "change",
        [
            {"max_length": 1000},
            {"max_prompt_length": 1000},
            {"validation_split": 0.2},
            {"template": "zephyr"},
            {"seed": 1},
            {"keep_ties": True},
            {"pairing": "all"},
            {"stage": "sft"},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_a_changed_flag_prepares_again(
        self, prepared: Prepare, spec: str, builds: list[str], change: dict[str, Any]
    ) -> None:
        folders = {prepared(spec).folder, prepared(spec, **change).folder}
        assert len(folders) == len(builds) == 2

    def test_a_changed_source_prepares_again(
        self, prepared: Prepare, spec: str, builds: list[str], tmp_path: Path, write_rows: WriteRows
    ) -> None:
        before = prepared(spec)
        write_rows([triplet(f"QUESTION {number}") for number in range(10)])
        os.utime(tmp_path / "rows.jsonl", ns=(1, 1))
        after = prepared(spec)
        assert builds == ["built", "built"]
        assert before.train[0]["prompt"][0]["content"] == "question 0"
        assert after.train[0]["prompt"][0]["content"] == "QUESTION 0"

    def test_a_changed_template_file_prepares_again(
        self, prepared: Prepare, spec: str, builds: list[str], tmp_path: Path
    ) -> None:
        file = tmp_path / "own.jinja"
        source = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
        file.write_text(source)
        before = prepared(spec, template=str(file))
        file.write_text(source.replace("m.content", "m.content.replace('question', '!')"))
        after = prepared(spec, template=str(file))
        assert builds == ["built", "built"]
        assert after.train[0]["prompt_ids"] != before.train[0]["prompt_ids"]

    def test_another_tokenizer_prepares_again(self, spec: str, builds: list[str], tmp_path: Path) -> None:
        folders = set()
        for special_tokens in (["<|im_start|>", "<|im_end|>"], ["<|im_end|>", "<|im_start|>"]):
            save_tokenizer(tmp_path / "model", train_byte_level(special_tokens), eos_token="<|im_end|>")
            tokenizer = load_tokenizer(str(tmp_path / "model"))
            folders.add(prepare(data_config([spec]), tokenizer, progress=False).folder)
        assert len(folders) == len(builds) == 2

    def test_changed_code_prepares_again(
        self, prepared: Prepare, spec: str, builds: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        prepared(spec)
        package = tmp_path / "dpo"
        shutil.copytree(Path(pipeline.dpo.__file__).parent, package)
        monkeypatch.setattr(pipeline.dpo, "__file__", str(package / "__init__.py"))
        prepared(spec)
        assert builds == ["built"]
        (package / "adapters" / "my_votes.py").write_text("# a user's own adapter")
        prepared(spec)
        assert builds == ["built", "built"]
        (package / "data" / "rendering" / "more.py").write_text("# code in a folder of the data pipeline")
        prepared(spec)
        assert builds == ["built", "built", "built"]


class TestConvertRow:
    """convert_row always returns at least one preference or drop, whatever the adapter does."""

    @staticmethod
    def reasons(convert: Callable[..., Any]) -> list[str]:
        adapter = dataclasses.replace(get_adapter("triplets"), convert=convert)
        return [
            candidate.reason if isinstance(candidate, Drop) else "kept"
            for candidate in convert_row({}, adapter, AdapterOptions())
        ]

    @pytest.mark.parametrize(
        "error", [KeyError("a"), IndexError(), TypeError(), AttributeError(), ValueError(), ZeroDivisionError()]
    )
    def test_a_typical_error_is_a_malformed_row(self, error: Exception) -> None:
        def convert(row: Any, options: Any) -> Any:
            raise error

        assert self.reasons(convert) == ["malformed_row"]

    def test_a_raised_drop_drops_the_row(self) -> None:
        def convert(row: Any, options: Any) -> Any:
            raise Drop("not_english")

        assert self.reasons(convert) == ["not_english"]

    def test_drops_and_pairs_may_both_be_yielded(self) -> None:
        assert self.reasons(lambda row, options: [pair(), Drop("too_old"), pair()]) == [
            "kept",
            "too_old",
            "kept",
        ]

    def test_a_row_without_a_result_is_counted_as_no_pair(self) -> None:
        assert self.reasons(lambda row, options: []) == ["no_pair"]

    def test_a_row_that_fails_after_a_pair_is_malformed(self) -> None:
        def convert(row: Any, options: Any) -> Any:
            yield pair()
            raise KeyError("a")

        assert self.reasons(convert)[-1] == "malformed_row"

    def test_a_pair_that_is_returned_instead_of_yielded_is_an_error(self) -> None:
        with pytest.raises(AdapterError, match="yield"):
            self.reasons(lambda row, options: pair())
