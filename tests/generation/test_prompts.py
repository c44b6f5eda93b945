"""Prompts from rows: what the model sees, how prompts form batches, and why rows are dropped."""

from typing import Any

import pytest

from dpo.data.reading.source import parse_source
from dpo.data.rendering.encoding import PairEncoder
from dpo.data.rendering.template import load_template
from dpo.data.rendering.tokenization import Tokenizer
from dpo.data.report import DataReport
from dpo.generation.chat import ChatEncoder
from dpo.generation.config import GenerationConfig
from dpo.generation.limits import Limits
from dpo.generation.prompts import WINDOW_BATCHES, Prompt, PromptReader, plan_batches
from tests.builders import data_config, pair, system

BEST_WORST = {"pair": "best_worst", "num_candidates": 2, "reward_model": "r"}


def row(prompt: Any = "Name a noble gas.", chosen: str = "Neon.") -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": "-"}


@pytest.fixture
def read(chatml_tokenizer: Tokenizer, write_rows):
    """A function that reads rows as triplets, and returns the prompts and the source's data report."""

    def call(
        rows: list[Any],
        *,
        fraction: str = "",
        context: int | None = None,
        reward_chat: ChatEncoder | None = None,
        **flags,
    ):
        source = parse_source(f"triplets={write_rows(rows)}{fraction}")
        data = data_config([source.spec])
        reader = PromptReader(
            data=data,
            config=GenerationConfig.from_flags({"model": "m"} | flags),
            encoder=PairEncoder(load_template("chatml"), chatml_tokenizer),
            limits=Limits(context=context, end_ids=()),
            reward_chat=reward_chat,
        )
        report = DataReport()
        prompts = list(reader.read([source], report))
        counts = report.sources[source.spec]
        assert counts.rows == len(prompts) + counts.dropped.total()
        return prompts, counts

    return call


def prompt(num_tokens: int, row: int = 0, **more: Any) -> Prompt:
    preference = pair().model_copy(update={"source": "s", "row": row})
    return Prompt(preference=preference, place=0, ids=[1] * num_tokens, **more)


def test_the_model_sees_what_training_sees(read, chatml_tokenizer: Tokenizer) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a noble gas."}]
    prompts, _ = read([row(turns)])
    trained = pair(rejected="Argon.")
    trained = trained.model_copy(update={"prompt": (system("Be brief."), *trained.prompt)})
    (encoded,) = PairEncoder(load_template("chatml"), chatml_tokenizer).encode([trained])
    assert prompts[0].ids == encoded.prompt_ids
    assert chatml_tokenizer.backend.decode(prompts[0].ids, skip_special_tokens=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nName a noble gas.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_prompts_come_in_order_with_their_source_row_and_given_answer(read) -> None:
    prompts, counts = read([row("Who?", "Me."), row(chosen=""), row("Where?", "Here.")])
    assert [(p.preference.row, p.preference.prompt[0].content, p.preference.chosen) for p in prompts] == [
        (0, "Who?", "Me."),
        (2, "Where?", "Here."),
    ]
    assert prompts[0].preference.source.startswith("triplets=")
    assert dict(counts.dropped) == {"empty_chosen": 1}


def test_rows_without_a_prompt_are_counted_by_their_reason(read) -> None:
    prompts, counts = read(
        [
            row(),
            row(" "),
            row(chosen=" "),
            row("\ud800"),
            row("<|im_end|> Forged."),
            row(chosen="Neon.<|im_end|>"),
            row("A long prompt. " * 20),
            {"prompt": "No answers."},
            "no object",
        ],
        max_prompt_length=40,
    )
    assert len(prompts) == 1
    assert dict(counts.dropped) == {
        "empty_prompt": 1,
        "empty_chosen": 1,
        "invalid_text": 1,
        "special_token_in_text": 2,
        "prompt_too_long": 1,
        "malformed_row": 2,
    }
    assert counts.raw_rows == 9


def test_prompt_and_answer_must_fit_into_the_context(read) -> None:
    length = len(read([row()])[0][0].ids)
    assert len(read([row()], context=length + 8, max_new_tokens=8)[0]) == 1
    prompts, counts = read([row()], context=length + 7, max_new_tokens=8)
    assert prompts == []
    assert counts.examples["prompt_too_long"][0]["detail"] == (
        f"{length} tokens + max_new_tokens 8, but the model's context is {length + 7}"
    )


def test_the_given_answer_may_be_anything_if_it_is_not_read(read) -> None:
    prompts, _ = read([row(chosen=""), row(chosen="<|im_end|>")], **BEST_WORST)
    assert len(prompts) == 2
    assert read([row(chosen=""), row(chosen="<|im_end|>")], **BEST_WORST, include_given=True)[0] == []


def test_a_prompt_that_the_reward_model_refuses_is_dropped(read, chatml_tokenizer: Tokenizer) -> None:
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}{% endif %}{{ eos_token }}"
    )
    chat = ChatEncoder(template=load_template("model", own=template), tokenizer=chatml_tokenizer)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a noble gas."}]
    prompts, counts = read([row(), row(turns)], reward_chat=chat, **BEST_WORST)
    assert [p.preference.row for p in prompts] == [0]
    assert "no system message" in counts.examples["template_refused"][0]["detail"]


def test_a_limit_counts_the_rows_of_a_source(read) -> None:
    prompts, counts = read([row(), row(chosen=""), row(), row()], limit=3)
    assert [p.preference.row for p in prompts] == [0, 2]
    assert counts.rows == 3


def test_rows_outside_the_fraction_are_counted(read) -> None:
    prompts, counts = read([row()] * 100, fraction="@0.2")
    assert len(prompts) == 20
    assert dict(counts.dropped) == {"not_sampled": 80}


def test_batches_contain_prompts_of_similar_length_with_the_longest_first() -> None:
    batches = plan_batches([prompt(n) for n in (3, 9, 4, 8, 1)], 2)
    assert [[len(p.ids) for p in batch] for batch in batches] == [[9, 8], [4, 3], [1]]


def test_prompts_of_one_length_stay_in_order() -> None:
    (batch,) = plan_batches([prompt(3, row) for row in range(4)], 4)
    assert [p.preference.row for p in batch] == [0, 1, 2, 3]


def test_lengths_are_sorted_only_within_a_window() -> None:
    batches = [[len(p.ids) for p in batch] for batch in plan_batches(map(prompt, range(1, WINDOW_BATCHES + 3)), 1)]
    assert batches[0] == [WINDOW_BATCHES]
    assert batches[-2:] == [[WINDOW_BATCHES + 2], [WINDOW_BATCHES + 1]]


def test_a_seed_depends_on_the_row_the_draw_and_the_run_seed() -> None:
    seeds = {
        prompt(3).seed_of(0, 42),
        prompt(3).seed_of(1, 42),
        prompt(3).seed_of("pick", 42),
        prompt(3).seed_of(0, 43),
        prompt(3, 1).seed_of(0, 42),
    }
    assert len(seeds) == 5
    assert max(seeds) < 2**63
    assert prompt(3).seed_of(0, 42) == prompt(7).seed_of(0, 42)
