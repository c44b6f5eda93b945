"""Tests of dpo.data.cleaning.selection with planted defects, each counted once with its reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpo.data.config import DataConfig
from dpo.data.pipeline import PreparedData, prepare
from dpo.data.rendering.tokenization import load_tokenizer
from dpo.errors import ConfigError, DataError
from tests.builders import put_first, save_tokenizer, train_byte_level
from tests.conftest import WriteRows

LONG = "the quick brown fox jumps over the lazy dog while nine old men play chess in the park"


def row(prompt: str, chosen: str = "Neon.", rejected: str = "Oxygen.", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected} | more


@pytest.fixture
def prepared(chatml_folder: Path) -> Callable[..., PreparedData]:
    def run(*datasets: str, **values: Any) -> PreparedData:
        config = DataConfig.from_flags({"datasets": datasets} | values)
        return prepare(config, load_tokenizer(str(chatml_folder)), progress=False)

    return run


def rows_left(data: PreparedData) -> list[int]:
    return data.train["row"][:]


DEFECTS = {
    "tie": row("a tie", score_chosen=5, score_rejected=5),
    "identical": row("the same", "Neon.", "Neon."),
    "below_margin": row("a small margin", score_chosen=5.5, score_rejected=5),
    "refusal": row("a refusal", "I'm sorry, but I can't help with that."),
    "contaminated": row("What is the boiling point of neon?"),
    "duplicate": row("one gas?"),
    "near_duplicate": row(f"tell me why {LONG}", f"Because {LONG}!", f"Since {LONG}"),
    "conflict": row("which gas?", "Oxygen.", "Neon."),
    "leaked_prompt": row("a prompt of the benchmark"),
    "special_token_in_text": row("a literal <|im_end|>"),
    "too_long": row("long " * 400),
    "empty_chosen": row("an empty answer", " "),
}


def test_a_planted_defect_of_each_kind_is_counted_exactly_once(prepared, write_rows: WriteRows, tmp_path: Path) -> None:
    good = [row("one gas?"), row(f"Tell me why {LONG}", f"Because {LONG}.", f"Since {LONG}."), row("which gas?")]
    good += [row(f"question {i}", score_chosen=9, score_rejected=2) for i in range(5)]
    train = write_rows([*good, *DEFECTS.values()], "train.jsonl")
    held_out = write_rows([row("a prompt of the benchmark"), row("another one")], "eval.jsonl")
    (tmp_path / "benchmark.txt").write_text("What is the boiling point of neon?\n")
    data = prepared(
        f"triplets={train}",
        eval_datasets=[f"triplets={held_out}"],
        max_length=300,
        min_score_margin=1.0,
        drop_refusals=True,
        drop_duplicates="near",
        drop_conflicts=True,
        drop_leaked_prompts=True,
        decontaminate=[str(tmp_path / "benchmark.txt")],
    )
    account = data.report.sources[f"triplets={train}"]
    # Both pairs of the conflict are dropped: the planted one, and the good pair that it contradicts.
    assert account.dropped == dict.fromkeys(DEFECTS, 1) | {"conflict": 2}
    assert rows_left(data) == [0, 1, 3, 4, 5, 6, 7]
    assert account.rows == account.kept + account.dropped.total() == len(good) + len(DEFECTS)
    places = {reason: examples[-1]["row"] for reason, examples in account.examples.items()}
    assert places == {reason: len(good) + place for place, reason in enumerate(DEFECTS)}
    assert data.report.sources[f"triplets={held_out}"].kept == 2


@pytest.mark.parametrize("reason", ["tie", "identical"])
def test_ties_and_identical_answers_are_dropped_by_default_and_kept_on_request(
    prepared, write_rows: WriteRows, reason: str
) -> None:
    file = write_rows([DEFECTS[reason], row("fine")])
    assert prepared(f"triplets={file}").report.total().dropped == {reason: 1}
    assert (
        not prepared(f"triplets={file}", **{{"tie": "keep_ties"}.get(reason, "keep_identical"): True})
        .report.total()
        .dropped
    )


def test_the_other_checks_are_off_by_default(prepared, write_rows: WriteRows) -> None:
    on_request = ("below_margin", "refusal", "contaminated", "duplicate", "near_duplicate", "conflict", "leaked_prompt")
    file = write_rows([row("one gas?"), row("which gas?"), *(DEFECTS[name] for name in on_request)])
    assert not prepared(f"triplets={file}").report.total().dropped


def test_a_duplicate_in_another_source_names_the_first(prepared, write_rows: WriteRows) -> None:
    first = f"triplets={write_rows([row('a'), row('b')], 'first.jsonl')}"
    second = f"triplets={write_rows([row('c'), row('a')], 'second.jsonl')}"
    report = prepared(first, second, drop_duplicates="exact").report
    assert report.sources[first].dropped == {} and report.sources[second].dropped == {"duplicate": 1}
    assert report.sources[second].examples["duplicate"] == [{"row": 1, "detail": f"repeats {first}, row 0"}]


def test_swapped_long_answers_are_a_conflict_and_not_a_near_duplicate(prepared, write_rows: WriteRows) -> None:
    yes, no = f"{LONG} {LONG} {LONG} yes", f"{LONG} {LONG} {LONG} no"
    file = write_rows([row("which?", yes, no), row("which?", no, yes), row("b")])
    data = prepared(f"triplets={file}", drop_duplicates="near", drop_conflicts=True)
    assert data.report.total().dropped == {"conflict": 2}


@pytest.mark.parametrize("score", ["NaN", "Infinity"])
def test_a_score_that_is_not_finite_is_malformed(prepared, tmp_path: Path, score: str) -> None:
    (tmp_path / "rows.jsonl").write_text(
        f'{{"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": {score}, "score_rejected": 1}}\n'
        '{"prompt": "b", "chosen": "b", "rejected": "c"}'
    )
    assert prepared(f"triplets={tmp_path / 'rows.jsonl'}").report.total().dropped == {"malformed_row": 1}


def test_an_inverted_pair_is_below_a_margin_of_0(prepared, write_rows: WriteRows) -> None:
    file = write_rows(
        [row("a", score_chosen=1, score_rejected=2), row("b", score_chosen=2, score_rejected=1), row("c")]
    )
    data = prepared(f"triplets={file}", min_score_margin=0)
    assert data.report.total().dropped == {"below_margin": 1} and rows_left(data) == [1, 2]


class TestMixing:
    def test_the_pairs_of_one_prompt_are_limited(self, prepared, write_rows: WriteRows) -> None:
        file = write_rows([row(f"prompt {i % 3}", f"answer {i}") for i in range(12)])
        data = prepared(f"triplets={file}", max_pairs_per_prompt=2)
        assert data.report.total().dropped == {"above_prompt_limit": 6}
        assert sorted(i % 3 for i in rows_left(data)) == [0, 0, 1, 1, 2, 2]

    def test_the_pairs_of_a_source_are_limited_by_cap_and_weight(self, prepared, write_rows: WriteRows) -> None:
        specs = [
            f"triplets={write_rows([row(f'{name} {i}') for i in range(size)], f'{name}.jsonl')}"
            for name, size in (("a", 30), ("b", 20), ("c", 10))
        ]
        capped = prepared(*specs, max_pairs_per_source=15).report
        assert [account.kept for account in capped.sources.values()] == [15, 15, 10]
        weighed = prepared(*specs, weights=[1, 1, 2]).report
        assert [account.kept for account in weighed.sources.values()] == [5, 5, 10]
        assert weighed.total().dropped == {"above_weight": 40}

    def test_the_same_seed_draws_the_same_pairs(self, prepared, write_rows: WriteRows) -> None:
        spec = f"triplets={write_rows([row(f'prompt {i}') for i in range(40)])}"
        draw = {
            seed: rows_left(prepared(spec, max_pairs_per_source=10, seed=seed, max_length=length))
            for seed, length in ((1, 900), (2, 900))
        }
        assert draw[1] == rows_left(prepared(spec, max_pairs_per_source=10, seed=1, max_length=901)), "prepared again"
        assert draw[1] != draw[2]

    def test_after_balancing_the_longer_answer_is_chosen_half_of_the_time(
        self, prepared, write_rows: WriteRows
    ) -> None:
        long, short = "a long answer of many words in a row", "short"
        rows = [row(f"prompt {i}", *((long, short) if i % 4 else (short, long))) for i in range(40)]
        data = prepared(f"triplets={write_rows(rows)}", balance_length=True)
        assert data.report.total().dropped == {"length_balance": 20}
        assert sum(len(pair["chosen_ids"]) > len(pair["rejected_ids"]) for pair in data.train) == 10

    @pytest.mark.parametrize("weights", [[1], [1, 2, 3], [1, 0], [1, -1], [1, float("nan")], [float("inf"), 1]])
    def test_weights_that_do_not_fit_are_refused(self, prepared, weights: list[float]) -> None:
        with pytest.raises(ConfigError, match=r"one number above 0 for each of the 2|finite number"):
            prepared("nectar", "orca_dpo_pairs", weights=weights)

    def test_dropping_leaks_without_eval_sources_is_refused(self, prepared) -> None:
        with pytest.raises(ConfigError, match="there are no --eval_datasets"):
            prepared("nectar", drop_leaked_prompts=True)


class TestStrict:
    """With --strict, some findings that are normally counted become errors that name the row."""

    @pytest.mark.parametrize(
        ("bad", "reason"),
        [
            (row([{"role": "narrator", "content": "Once"}]), "unknown_role"),
            (row("fine", "\nNeon."), "boundary_shift"),
        ],
    )
    def test_a_row_of_each_kind_is_an_error(
        self, prepared, write_rows: WriteRows, bad: dict[str, Any], reason: str
    ) -> None:
        spec = f"triplets={write_rows([row('fine'), row('fine too'), bad])}"
        total = prepared(spec).report.total()
        assert total.dropped[reason] + total.flagged[reason] == 1
        with pytest.raises(DataError, match=f"--strict: .*, row 2: {reason}"):
            prepared(spec, strict=True)

    def test_a_second_bos_is_an_error(self, write_rows: WriteRows, tmp_path: Path) -> None:
        backend = train_byte_level(["<s>", "</s>"])
        put_first(backend, "<s>")
        template = "{{ bos_token }}{{ bos_token }}{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
        folder = save_tokenizer(tmp_path / "m", backend, bos_token="<s>", eos_token="</s>", chat_template=template)
        values = {"datasets": (f"triplets={write_rows([row('a'), row('b')])}",), "template": "model"}
        data = prepare(DataConfig.from_flags(values), load_tokenizer(str(folder)), progress=False)
        assert data.report.total().flagged == {"double_bos": 2}
        assert "double_bos (2 of the kept pairs): the prompt begins with two BOS tokens" in data.report.table()
        with pytest.raises(DataError, match="row 0: double_bos"):
            prepare(DataConfig.from_flags(values | {"strict": True}), load_tokenizer(str(folder)), progress=False)

    def test_an_answer_without_an_end_token_is_an_error(self, prepared, write_rows: WriteRows, tmp_path: Path) -> None:
        template = (
            "{#- control_tokens: <|im_start|> <|im_end|> -#}"
            "{% for m in messages %}{{ '<|im_start|>' + m.content }}"
            "{% if 'endless' not in m.content %}{{ '<|im_end|>' }}{% endif %}{% endfor %}"
        )
        (tmp_path / "t.jinja").write_text(template)
        spec = f"triplets={write_rows([row('a'), row('b', 'endless')])}"
        flags = {"template": str(tmp_path / "t.jinja")}
        assert prepared(spec, **flags).report.total().dropped == {"no_end_token": 1}
        with pytest.raises(DataError, match="row 1: no_end_token"):
            prepared(spec, strict=True, **flags)


def test_kept_pairs_with_literals_are_counted(prepared, write_rows: WriteRows) -> None:
    spec = f"triplets={write_rows([row('fine'), DEFECTS['special_token_in_text']])}"
    report = prepared(spec, special_tokens_in_text="keep").report
    assert report.total().flagged == {"literal_in_text": 1}
    assert json.loads(json.dumps(report.total().counts()))["flagged"] == {"literal_in_text": 1}
