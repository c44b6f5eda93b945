"""Tiny models with a chatml tokenizer: some that talk and come to an end, one that is silent, one that scores."""

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
    """A chatml tokenizer with a template of its own."""
    template = (TEMPLATES / "chatml.jinja").read_text(encoding="utf-8")
    return save_tokenizer(folder, train_byte_level(CHATML), eos_token="<|im_end|>", chat_template=template)


def save_llama(folder: Path, *, end_score: float, seed: int = 0) -> Path:
    """A random llama whose every state holds a constant, by which its end token scores about so much.

    It never opens a turn by itself.
    """
    save_tiny(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    set_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **SIZES))
    with torch.no_grad():
        # In each state the first number is a constant that drowns the rest: normed, it is about 4. The layer neither
        # sees nor changes it, and hears the rest again by the weights of the norms.
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
    """It says a few tokens of gibberish, and ends."""
    return save_llama(tmp_path_factory.mktemp("talks"), end_score=4.0)


@pytest.fixture(scope="session")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It never ends."""
    return save_llama(tmp_path_factory.mktemp("endless"), end_score=-100.0)


@pytest.fixture(scope="session")
def silent_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It ends before it has said a word."""
    return save_llama(tmp_path_factory.mktemp("silent"), end_score=100.0)


@pytest.fixture(scope="session")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random classifier with one label, which can be given texts of several lengths at once."""
    folder = save_tiny(tmp_path_factory.mktemp("scores"))
    set_seed(1)
    size = len(AutoTokenizer.from_pretrained(folder))
    # Padding must be no token that a text ends in: the last of the vocabulary here.
    LlamaForSequenceClassification(
        LlamaConfig(vocab_size=size + 1, num_labels=1, pad_token_id=size, **SIZES)
    ).save_pretrained(folder)
    return folder
