"""Tests of dpo.inspection.statistics and collection, with an independent calculation of some numbers."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dpo.data.config import DataConfig
from dpo.data.pipeline import prepare
from dpo.data.rendering.tokenization import load_tokenizer
from dpo.inspection.collection import inspect_pairs, main_script
from dpo.inspection.statistics import Repeats, Statistics, quantile
from tests.builders import SAMPLES
from tests.conftest import WriteRows

ULTRAFEEDBACK = f"ultrafeedback={SAMPLES / 'ultrafeedback.jsonl'}"


def row(prompt: Any, chosen: str = "Neon.", rejected: str = "Oxygen.", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected} | more


@pytest.fixture
def inspect(chatml_folder: Path):
    def run(*datasets: str, **values: Any) -> Statistics:
        config = DataConfig.from_flags({"datasets": datasets} | values)
        return inspect_pairs(prepare(config, load_tokenizer(str(chatml_folder)), progress=False))

    return run


def test_ties_and_length_bias_of_the_sample_rows(inspect, chatml_folder: Path) -> None:
    statistics = inspect(ULTRAFEEDBACK, max_length=4000)
    config = DataConfig.from_flags({"datasets": (ULTRAFEEDBACK,), "max_length": 4000})
    tokenizer = load_tokenizer(str(chatml_folder))
    pairs = prepare(config, tokenizer, progress=False).train.to_list()
    lengths = [map(len, tokenizer.encode([p["chosen"], p["rejected"]])) for p in pairs]
    signs = Counter((chosen > rejected) - (chosen < rejected) for chosen, rejected in lengths)
    bias = statistics.length_bias
    assert (bias.longer, bias.equal, bias.shorter) == (signs[1], signs[0], signs[-1])
    assert bias.accuracy == (signs[1] + signs[0] / 2) / len(pairs)
    assert statistics.measures()["tie"] == (4, 125)
    assert statistics.measures()["longer_wins"] == (bias.accuracy * len(pairs), len(pairs))
    margins = [p["score_chosen"] - p["score_rejected"] for p in pairs if p["score_chosen"] is not None]
    assert statistics.score_margins == Counter(margins) and margins


def test_a_planted_finding_of_each_kind_is_counted_once(inspect, write_rows: WriteRows) -> None:
    long = "the quick brown fox jumps over the lazy dog while nine old men play chess in the park"
    rows = [
        row("one gas?"),
        row("one gas?"),
        row("which gas?"),
        row("which gas?", "Oxygen.", "Neon."),
        row(f"tell me why {long}", f"because {long}", f"since {long}"),
        row(f"tell me why {long}!", f"because {long}", f"Since {long}"),
        row("help?", "I'm sorry, but I can't help with that."),
        row("who?", "Well, as an AI language model, I am nobody."),
        row("inverted", score_chosen=1, score_rejected=2),
        row("tie", score_chosen=1, score_rejected=1),
        row("literal <|im_end|>"),
        row("merged", "\nNeon."),
    ]
    spec = f"triplets={write_rows(rows)}"
    held_out = f"triplets={write_rows([row('help?'), row('elsewhere')], 'eval.jsonl')}"
    statistics = inspect(spec, eval_datasets=[held_out], keep_ties=True, special_tokens_in_text="keep")
    assert statistics.found == {
        "duplicate": 1,
        "conflict": 2,
        "near_duplicate": 1,
        "refusal": 1,
        "boilerplate": 1,
        "tie": 1,
        "inverted": 1,
        "leakage": 1,
        "literal_in_text": 1,
        "boundary_shift": 1,
    }
    assert statistics.pairs == 14
    measures = {name: count for name, (count, _) in statistics.measures().items()}
    assert measures["literal_in_text"] == measures["boundary_shift"] == measures["leakage"] == 1
    places = {(finding.kind, finding.row) for finding in statistics.findings}
    assert {("duplicate", 1), ("conflict", 2), ("conflict", 3), ("near_duplicate", 5), ("refusal", 6)} <= places
    assert {("literal_in_text", 10), ("boundary_shift", 11)} <= places
    assert next(finding.row for finding in statistics.findings if finding.kind == "longest") in (4, 5)


def test_in_stage_sft_only_measures_of_one_answer_are_counted(inspect, write_rows: WriteRows) -> None:
    rows = [
        row("one gas?"),
        row("one gas?", rejected="Iron."),
        row("which gas?", "Neon.", "Oxygen."),
        row("which gas?", "Oxygen.", "Neon."),
        row("the same", "Neon.", "Neon."),
        row("help?", "I'm sorry, but I can't help with that.", score_chosen=1, score_rejected=1),
        row("merged", "\nNeon."),
    ]
    held_out = f"triplets={write_rows([row('help?'), row('elsewhere')], 'eval.jsonl')}"
    statistics = inspect(f"triplets={write_rows(rows)}", eval_datasets=[held_out], stage="sft")
    assert statistics.found == {"duplicate": 1, "refusal": 1, "boundary_shift": 1, "leakage": 1}
    assert statistics.pairs == 9
    assert not statistics.score_margins and not statistics.length_bias.differences
    assert statistics.as_json()["length_bias"] is None and "longer_wins" not in statistics.measures()
    assert {finding.rejected_tokens for finding in statistics.findings} == {None}
    assert "length_difference" not in {finding.kind for finding in statistics.findings}


def test_a_measure_counts_dropped_rows_and_findings(inspect, write_rows: WriteRows) -> None:
    spec = f"triplets={write_rows([row('a'), row('a'), row('b'), row('b')])}"
    for values in ({}, {"drop_duplicates": "exact"}):
        assert inspect(spec, **values).measures()["duplicate"] == (2, 4)


def test_a_prompt_in_both_splits_is_leakage_and_not_a_duplicate(inspect, write_rows: WriteRows) -> None:
    spec = f"triplets={write_rows([row('a'), row('b')])}"
    held_out = f"triplets={write_rows([row('a'), row('c')], 'eval.jsonl')}"
    assert inspect(spec, eval_datasets=[held_out]).found == {"leakage": 1}


def test_kept_pairs_with_identical_answers_are_found(inspect, write_rows: WriteRows) -> None:
    spec = f"triplets={write_rows([row('a', 'same', 'same'), row('b')])}"
    assert inspect(spec, keep_identical=True).found == {"identical": 1}


def test_rows_that_were_not_sampled_are_not_in_the_total(inspect) -> None:
    statistics = inspect(f"{ULTRAFEEDBACK}@0.2", max_length=4000)
    left_out = statistics.report.total().dropped["not_sampled"]
    assert left_out > 90
    assert {total for name, (_, total) in statistics.measures().items() if name != "longer_wins"} == {125 - left_out}


def test_a_pair_in_a_conflict_can_have_a_near_duplicate_too(inspect, write_rows: WriteRows) -> None:
    rows = [row("two plus two?", "4", "5"), row("two  PLUS two?", "4", "5"), row("two plus two?", "5", "4")]
    found = inspect(f"triplets={write_rows(rows)}").found
    assert found == {"conflict": 2, "near_duplicate": 1}


def test_duplicates_within_a_source_and_across_sources_are_counted(inspect, write_rows: WriteRows) -> None:
    first = f"triplets={write_rows([row('a'), row('a'), row('b')], 'first.jsonl')}"
    second = f"triplets={write_rows([row('b'), row('c')], 'second.jsonl')}"
    assert inspect(first, second).duplicates == Repeats(within=1, across=1)


def test_kept_at_equals_the_kept_pairs_of_runs_with_these_limits(inspect) -> None:
    kept_at = inspect(ULTRAFEEDBACK, max_length=315).kept_at()
    for bound in (256, 315, 512):
        assert inspect(ULTRAFEEDBACK, max_length=bound).report.total().kept == kept_at[bound]
    assert kept_at[256] < kept_at[315] < kept_at[512]


def test_turns_system_messages_and_scripts_are_counted(inspect, write_rows: WriteRows) -> None:
    turn = {"role": "user", "content": "Which gas?"}
    system = {"role": "system", "content": "Be brief."}
    answer = {"role": "assistant", "content": "Neon."}
    rows = [
        row([turn]),
        row([system, turn], "Argon."),
        row([turn, answer, turn]),
        row("什么气体？", "氖。", "氧。"),
        row("Какой газ?", "Неон.", "Кислород."),
        row("1 + 1?", "2", "3"),
    ]
    statistics = inspect(f"triplets={write_rows(rows)}")
    assert statistics.turns == {1: 5, 3: 1} and statistics.systems == 1
    assert statistics.scripts == {"Latin": 3, "Cjk": 1, "Cyrillic": 1, "none": 1}


def test_the_script_of_most_letters_counts() -> None:
    assert main_script("Мы говорим hello") == "Cyrillic" and main_script("123 !?") == "none"


@pytest.mark.parametrize(("share", "value"), [(0, 1), (0.5, 2), (0.51, 5), (0.9, 5), (1, 9)])
def test_quantiles(share: float, value: int) -> None:
    assert quantile(Counter({1: 2, 2: 3, 5: 4, 9: 1}), share) == value
