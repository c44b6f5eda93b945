"""Tiny models with a chatml tokenizer: three language models that end early, never or at once, and a reward model."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, set_seed

from dpo.data.rendering.template import TEMPLATES
from tests.builders import CHATML, save_tokenizer, train_byte_level

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "initializer_range": 0.5,
    "tie_word_embeddings": False,
}


def save_tiny(folder: Path) -> Path:
    """Save a chatml tokenizer with its own chat template."""
    template = (TEMPLATES / "chatml.jinja").read_text(encoding="utf-8")
    return save_tokenizer(folder, train_byte_level(CHATML), eos_token="<|im_end|>", chat_template=template)


def save_llama(folder: Path, *, end_score: float, seed: int = 0) -> Path:
    """Save a random llama. A constant in each hidden state gives its end token a logit of about end_score.

    The model never generates the token that opens a turn.
    """
    save_tiny(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    set_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **SIZES))
    with torch.no_grad():
        # The first number of each hidden state is a constant that is much larger than the rest: after the norm it is
        # about 4. The layer neither reads nor changes it, and the weights of the norms scale the rest up again.
        layer = model.model.layers[0]
        model.model.embed_tokens.weight[:, 0] = 100.0
        layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0.0
        layer.input_layernorm.weight[:] = torch.tensor([0.0] + [50.0] * 15)
        layer.post_attention_layernorm.weight[:] = torch.tensor([0.0] + [5.0] * 15)
        model.model.norm.weight[1:] = 3.0
        model.lm_head.weight[:, 0] = 0.0
        model.lm_head.weight[tokenizer.all_special_ids] = 0.0
        model.lm_head.weight[tokenizer.convert_tokens_to_ids("<|im_start|>"), 0] = -100.0
        model.lm_head.weight[tokenizer.eos_token_id, 0] = end_score / 4
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers are a few random tokens."""
    return save_llama(tmp_path_factory.mktemp("talks"), end_score=4.0)


@pytest.fixture(scope="session")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that never ends its answer."""
    return save_llama(tmp_path_factory.mktemp("endless"), end_score=-100.0)


@pytest.fixture(scope="session")
def silent_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers are empty."""
    return save_llama(tmp_path_factory.mktemp("silent"), end_score=100.0)


@pytest.fixture(scope="session")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random classifier with one label that can score texts of several lengths in one batch."""
    folder = save_tiny(tmp_path_factory.mktemp("scores"))
    set_seed(1)
    size = len(AutoTokenizer.from_pretrained(folder))
    # The padding token must not be a token that a text can end with, so it is one more than the tokenizer has.
    LlamaForSequenceClassification(
        LlamaConfig(vocab_size=size + 1, num_labels=1, pad_token_id=size, **SIZES)
    ).save_pretrained(folder)
    return folder
