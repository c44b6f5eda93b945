"""Builders for tests: tiny tokenizers, messages, pairs, configurations and models."""

import json
import os
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, processors, trainers

from dpo.data.config import DataConfig
from dpo.data.rendering.encoding import EncodedPair
from dpo.models.locating import LocatedModel
from dpo.records import Message, Preference

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "samples"

CHATML = ["<|im_start|>", "<|im_end|>"]
LLAMA3 = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]

SENTENCES = [
    "Name a noble gas.",
    "Neon is a noble gas, and so is argon.",
    "What is the capital of Peru? The capital of Peru is Lima.",
    "You are a helpful assistant. Answer the user in one short sentence.",
    "system\nuser\nassistant\n",
    "Q: Which gas?\n\nA: Neon.\n\nA:Neon A:Neon A:Neon",
] * 4

# The split of Llama 3 and Qwen: a word together with the character before it, and consecutive line breaks together.
WORDS = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def train_byte_level(special_tokens: Sequence[str]) -> tokenizers.Tokenizer:
    r"""Train a byte-level BPE: special tokens first, then 256 bytes, then merges, which include "\n\n"."""
    return tokenizers.Tokenizer.from_str(trained_byte_level(tuple(special_tokens)))


@cache
def trained_byte_level(special_tokens: tuple[str, ...]) -> str:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(WORDS, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return backend.to_str()


def train_sentencepiece() -> tokenizers.Tokenizer:
    """Train a BPE with SentencePiece's conventions: ▁ for a space, one more in front, bytes for unknown characters."""
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    backend.train_from_iterator([sentence.replace("\n", " ") for sentence in SENTENCES], trainer)
    content = json.loads(backend.to_str())
    vocabulary = content["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    content["model"]["byte_fallback"] = True
    backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


def put_first(backend: tokenizers.Tokenizer, bos: str) -> None:
    """Make a tokenizer add a BOS token before every text."""
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, backend.token_to_id(bos))]
    )


def save_tokenizer(folder: Path, backend: tokenizers.Tokenizer, **config: Any) -> Path:
    """Write the two tokenizer files of a model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | config))
    return folder


def system(content: str) -> Message:
    return Message(role="system", content=content)


def user(content: str) -> Message:
    return Message(role="user", content=content)


def assistant(content: str) -> Message:
    return Message(role="assistant", content=content)


def pair(
    prompt: str = "Name a noble gas.", chosen: str = "Neon.", rejected: str = "Oxygen.", **more: Any
) -> Preference:
    """Build a pair whose prompt is one user turn."""
    return Preference(prompt=(user(prompt),), chosen=chosen, rejected=rejected, **more)


def instruction(prompt: str = "Name a noble gas.", answer: str = "Neon.", **more: Any) -> Preference:
    """Build an instruction row whose prompt is one user turn."""
    return Preference(prompt=(user(prompt),), chosen=answer, **more)


def encoded(num_prompt: int, num_chosen: int, num_rejected: int) -> EncodedPair:
    """Build an encoded pair by numbers of tokens, or an instruction row if the rejected answer has 0 tokens."""
    return EncodedPair(
        preference=pair() if num_rejected else instruction(),
        prompt_ids=[1] * num_prompt,
        chosen_ids=[2] * num_chosen,
        rejected_ids=[3] * num_rejected,
        boundary_shift=False,
    )


def located(folder: Path) -> LocatedModel:
    """Build the location of a model whose tokenizer is in the same folder."""
    return LocatedModel(base=str(folder), tokenizer=str(folder))


def put_on_hub(name: str, **revisions: Path) -> str:
    """Copy folders into the Hub's local cache as revisions of a repository, and return its name."""
    cached = Path(os.environ["HF_HUB_CACHE"]) / f"models--{name.replace('/', '--')}"
    shutil.rmtree(cached, ignore_errors=True)
    for number, (revision, folder) in enumerate(revisions.items()):
        shutil.copytree(folder, cached / "snapshots" / f"{number:040x}")
        (cached / "refs").mkdir(exist_ok=True)
        (cached / "refs" / revision).write_text(f"{number:040x}")
    return name


def data_config(datasets: Sequence[str] = ("triplets",), **values: Any) -> DataConfig:
    return DataConfig(datasets=tuple(datasets), **values)


def save_tiny_llama(folder: Path, *, seed: int) -> Path:
    """Save a random Llama with 2 layers of width 16 and a chatml tokenizer. Only the weights depend on the seed."""
    import torch  # imported here, because the tests of the data pipeline do not need it
    from transformers import LlamaConfig, LlamaForCausalLM

    backend = train_byte_level(CHATML)
    save_tokenizer(folder, backend, eos_token="<|im_end|>")
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=backend.get_vocab_size(),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # large weights, so that attention is not uniform and answers differ
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    return folder
