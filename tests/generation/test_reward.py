"""Scores of a reward model."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from dpo.errors import ModelError
from dpo.generation.chat import ChatEncoder
from dpo.generation.reward import RewardModel
from dpo.records import Message
from tests.builders import assistant, user
from tests.generation.conftest import SIZES, save_tiny

ANSWERS = ["Neon.", "Neon is a noble gas, and so is argon.", "", "Iron"]
CONVERSATIONS = [[user("Name a noble gas."), assistant(text)] for text in ANSWERS]


def load(folder: Path, batch_size: int = 4) -> RewardModel:
    chat = ChatEncoder.of_reward_model(str(folder))
    return RewardModel(str(folder), chat, batch_size=batch_size, dtype="auto", trust_remote_code=False)


def score_alone(folder: Path, conversation: list[Message]) -> float:
    """Compute a score without the code under test."""
    ids = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [message.model_dump() for message in conversation], return_tensors="pt", return_dict=False
    )
    with torch.no_grad():
        return float(AutoModelForSequenceClassification.from_pretrained(folder)(ids).logits[0, 0])


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_scores_are_those_of_each_conversation_alone(reward_model: Path, batch_size: int) -> None:
    expected = [score_alone(reward_model, conversation) for conversation in CONVERSATIONS]
    assert load(reward_model, batch_size).score(CONVERSATIONS) == pytest.approx(expected, abs=1e-5)
    assert len(set(expected)) == 4


def save_classifier(folder: Path, **config: int) -> Path:
    save_tiny(folder)
    size = len(AutoTokenizer.from_pretrained(folder))
    LlamaForSequenceClassification(LlamaConfig(vocab_size=size, **SIZES, **config)).save_pretrained(folder)
    return folder


def test_a_model_without_a_padding_token_scores_one_text_at_a_time(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, num_labels=1)
    model = load(folder)
    assert model.batch_size == 1
    expected = [score_alone(folder, conversation) for conversation in CONVERSATIONS]
    assert model.score(CONVERSATIONS) == pytest.approx(expected, abs=1e-5)


def test_a_conversation_longer_than_the_context_has_no_score(reward_model: Path) -> None:
    model = load(reward_model)
    long = [user("Name a noble gas."), assistant("Neon. " * 512)]
    first, without, last = model.score([CONVERSATIONS[0], long, CONVERSATIONS[1]])
    assert without is None
    assert [first, last] == pytest.approx(model.score(CONVERSATIONS[:2]), abs=1e-5)


def test_no_conversations_give_no_scores(reward_model: Path) -> None:
    assert load(reward_model).score([]) == []


def test_a_language_model_is_refused(model: Path) -> None:
    with pytest.raises(ModelError, match=r"the weights lack score\.weight, so the scores would be random"):
        load(model)


def test_a_classifier_of_two_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 2 labels, expected 1"):
        load(save_classifier(tmp_path, num_labels=2))


def test_a_score_of_nan_is_an_error(reward_model: Path) -> None:
    model = load(reward_model)
    with torch.no_grad():
        model.model.score.weight.fill_(torch.nan)
    with pytest.raises(ModelError, match="the score of an answer is nan"):
        model.score(CONVERSATIONS)
