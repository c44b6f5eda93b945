"""How conversations are encoded for a reward model."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from dpo.errors import ModelError
from dpo.generation.chat import ChatEncoder
from tests.builders import assistant, user


def test_the_ids_are_those_of_apply_chat_template(reward_model: Path) -> None:
    conversation = [user("Name a noble gas."), assistant("Neon.")]
    theirs = AutoTokenizer.from_pretrained(reward_model).apply_chat_template(
        [message.model_dump() for message in conversation], return_dict=False
    )
    assert ChatEncoder.of_reward_model(str(reward_model)).encode([conversation]) == [theirs]


def test_a_reward_model_without_a_template_is_refused(chatml_folder: Path) -> None:
    assert "chat_template" not in json.loads((chatml_folder / "tokenizer_config.json").read_text())
    with pytest.raises(ModelError, match="the tokenizer has no chat template"):
        ChatEncoder.of_reward_model(str(chatml_folder))
