"""Pairs from a batch of prompts, with tiny models."""

from pathlib import Path
from typing import Any

import pytest

from dpo.data.rendering.encoding import PairEncoder, any_of
from dpo.data.rendering.template import load_template
from dpo.data.rendering.tokenization import load_tokenizer
from dpo.generation.backends.base import Answer
from dpo.generation.chat import ChatEncoder
from dpo.generation.config import GenerationConfig
from dpo.generation.pairs import PairMaker
from dpo.generation.prompts import Prompt
from dpo.generation.reward import RewardModel
from dpo.models.locating import locate
from dpo.records import Preference
from tests.builders import assistant, pair

QUESTIONS = ["Name a noble gas.", "Who?", "What is the capital of Peru?"]
SCORED = {"pair": "best_worst", "num_candidates": 4}


def make_maker(folder: Path, reward_model: Path | None = None, **flags: Any) -> PairMaker:
    defaults = {"model": str(folder), "temperature": 1.0, "max_new_tokens": 40, "keep_unfinished": True}
    if reward_model is not None:
        flags |= {"reward_model": str(reward_model)}
    tokenizer = load_tokenizer(str(folder))
    encoder = PairEncoder(load_template("chatml"), tokenizer)
    assert encoder.end_of_turn_id is not None
    return PairMaker(
        config=GenerationConfig.from_flags(defaults | flags),
        located=locate(str(folder)),
        encoder=encoder,
        end_ids=[encoder.end_of_turn_id],
        seed=42,
        reward_chat=None if reward_model is None else ChatEncoder.of_reward_model(str(reward_model)),
    )


def make_batch(maker: PairMaker, chosen: str = "Neon, of course.") -> list[Prompt]:
    preferences = [
        pair(question, chosen, chosen, source="s", row=row, score_chosen=9, score_rejected=1)
        for row, question in enumerate(QUESTIONS)
    ]
    return [
        Prompt(preference=encoded.preference, place=0, ids=encoded.prompt_ids)
        for encoded in maker.encoder.encode(preferences)
    ]


def texts_of(maker: PairMaker, batch: list[Prompt]) -> list[list[str]]:
    return [maker.check(answers)[0] for answers in maker.answer(batch)]


def score(reward_model: Path, preferences: list[Preference], texts: list[str]) -> list[float]:
    chat = ChatEncoder.of_reward_model(str(reward_model))
    model = RewardModel(str(reward_model), chat, batch_size=1, dtype="float32", trust_remote_code=False)
    return model.score(
        [[*preference.prompt, assistant(text)] for preference, text in zip(preferences, texts, strict=True)]
    )


def test_the_given_answer_is_chosen_and_the_models_rejected(model: Path) -> None:
    maker = make_maker(model)
    batch = make_batch(maker)
    pairs, record = maker.make(batch)
    assert [made.rejected for made in pairs] == [texts[0] for texts in texts_of(maker, batch)]
    assert [made.prompt for made in pairs] == [prompt.preference.prompt for prompt in batch]
    assert {made.chosen for made in pairs} == {"Neon, of course."}
    assert {(made.score_chosen, made.score_rejected) for made in pairs} == {(None, None)}
    assert record.rows == [0, 1, 2]
    assert record.dropped == {}


def test_no_answer_contains_a_control_token(model: Path) -> None:
    maker = make_maker(model)
    for made in maker.make(make_batch(maker))[0]:
        assert maker.encoder.literals.search(made.rejected or "") is None


def test_candidates_of_a_prompt_are_sampled_independently(endless_model: Path) -> None:
    maker = make_maker(endless_model, num_candidates=4)
    for texts in texts_of(maker, make_batch(maker)):
        assert len(set(texts)) == 4


@pytest.mark.parametrize(("pick", "choose"), [("longest", max), ("shortest", min)])
def test_the_rejected_answer_is_the_longest_or_the_shortest(model: Path, pick: str, choose: Any) -> None:
    maker = make_maker(model, num_candidates=4, pick=pick)
    batch = make_batch(maker)
    expected = [choose(texts, key=len) for texts in texts_of(maker, batch)]
    assert [made.rejected for made in maker.make(batch)[0]] == expected


def test_the_rejected_answer_is_the_one_that_scores_lowest(endless_model: Path, reward_model: Path) -> None:
    maker = make_maker(endless_model, reward_model, num_candidates=4, pick="scorer")
    batch = make_batch(maker)
    pairs, _ = maker.make(batch)
    for made, prompt, texts in zip(pairs, batch, texts_of(maker, batch), strict=True):
        scores = score(reward_model, [prompt.preference] * 4, texts)
        assert made.rejected == texts[scores.index(min(scores))]
        assert made.score_rejected is None


def test_the_best_is_paired_with_the_worst_and_both_scores_are_kept(endless_model: Path, reward_model: Path) -> None:
    maker = make_maker(endless_model, reward_model, **SCORED)
    batch = make_batch(maker)
    pairs, _ = maker.make(batch)
    for made, prompt, texts in zip(pairs, batch, texts_of(maker, batch), strict=True):
        scores = score(reward_model, [prompt.preference] * 4, texts)
        assert (made.chosen, made.rejected) == (texts[scores.index(max(scores))], texts[scores.index(min(scores))])
        assert made.score_chosen == pytest.approx(max(scores), abs=1e-5)
        assert made.score_rejected == pytest.approx(min(scores), abs=1e-5)


def test_the_given_answer_is_a_candidate_with_include_given(model: Path, reward_model: Path) -> None:
    maker = make_maker(model, reward_model, pair="best_worst", num_candidates=1, include_given=True)
    batch = make_batch(maker)
    pairs, _ = maker.make(batch)
    for made, texts in zip(pairs, texts_of(maker, batch), strict=True):
        assert {made.chosen, made.rejected} == {"Neon, of course.", *texts}


def test_an_answer_that_repeats_the_given_one_is_refused(model: Path) -> None:
    maker = make_maker(model)
    answer = texts_of(maker, make_batch(maker))[1][0]
    pairs, record = maker.make(make_batch(maker, chosen=answer.upper()))
    assert record.dropped == {1: ("near_identical", f"the model wrote {answer[:60]!r}")}
    assert [made.row for made in pairs] == [0, 2]


def test_empty_answers_give_no_pair(silent_model: Path) -> None:
    maker = make_maker(silent_model)
    pairs, record = maker.make(make_batch(maker))
    assert pairs == []
    assert record.dropped == dict.fromkeys(range(3), ("empty_generation", ""))
    assert record.num_tokens == 3


def test_an_answer_that_was_cut_off_is_refused(endless_model: Path) -> None:
    maker = make_maker(endless_model, keep_unfinished=False)
    pairs, record = maker.make(make_batch(maker))
    assert pairs == []
    assert {reason for reason, _ in record.dropped.values()} == {"unfinished"}
    assert record.num_tokens == 3 * 40


def test_answers_that_the_reward_model_cannot_score_are_refused(model: Path, reward_model: Path) -> None:
    maker = make_maker(model, reward_model, **SCORED)
    answers = [Answer(ids=maker.encoder.tokenizer.encode([text])[0], ended=True) for text in ("[END] Neon", "Neon")]
    assert maker.check(answers)[0] == ["[END] Neon", "Neon"]
    del maker.literals
    maker.reward_chat.__dict__["literals"] = any_of(["[END]"])
    texts, refused = maker.check(answers)
    assert texts == ["Neon"] and [drop.reason for drop in refused] == ["special_token_in_text"]
    batch = make_batch(maker)[:1]
    candidates, refused = maker.score(batch, [(["Neon. " * 512, "Neon"], refused)])[0]
    assert [candidate.text for candidate in candidates] == ["Neon"]
    assert [drop.reason for drop in refused] == ["special_token_in_text", "too_long_to_score"]
