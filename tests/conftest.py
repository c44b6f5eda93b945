"""Tiny tokenizers in model-like folders, and a cache and a Hub of the tests' own: nothing is read from a user's."""

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before any library of the Hub is imported: each of them reads these once.
HUB = tempfile.mkdtemp(prefix="dpo-tests-hub-")
atexit.register(shutil.rmtree, HUB, ignore_errors=True)
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": HUB, "HF_HUB_CACHE": f"{HUB}/hub", "HF_DATASETS_CACHE": f"{HUB}/sets"}

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from dpo.data.config import DataConfig
from dpo.data.tokenization import Tokenizer, load_tokenizer
from dpo.records import Message, Preference

SENTENCES = [
    "Name a noble gas.",
    "Neon is a noble gas, and so is argon.",
    "What is the capital of Peru? The capital of Peru is Lima.",
    "You are a helpful assistant. Answer the user in one short sentence.",
    "system\nuser\nassistant\n",
    "Q: Which gas?\n\nA: Neon.\n\n",
    "Q:gas\nA:Neon A:Neon A:Neon",
] * 4

CHATML = ["<|im_start|>", "<|im_end|>"]
LLAMA3 = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]


def train_bpe(special_tokens: list[str], *, vocab_size: int = 400) -> tokenizers.Tokenizer:
    """A byte-level BPE tokenizer, as GPT-2's: special tokens first, then 256 bytes, then merges such as "\\n\\n"."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Split at words while training alone, so that merges across white space and ":" stay few and small.
    pieces = [piece for sentence in SENTENCES for piece in (sentence, "\n\n", ": ")]
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.train_from_iterator(pieces, trainer)
    return backend


def train_sentencepiece() -> tokenizers.Tokenizer:
    """A BPE tokenizer with SentencePiece's conventions, as Mistral's: ▁ for a space, one in front, bytes for the rest."""
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
    """Make a tokenizer write a BOS token before every text."""
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, backend.token_to_id(bos))]
    )


def save_tokenizer(folder: Path, backend: tokenizers.Tokenizer, **config: Any) -> Path:
    """Write the two files of a model's folder that hold its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | config))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder for each test."""
    folder = tmp_path / "dpo-cache"
    monkeypatch.setenv("DPO_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def chatml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen-like: chatml's control tokens, no BOS, no template of its own."""
    backend = train_bpe(CHATML)
    return save_tokenizer(tmp_path_factory.mktemp("chatml"), backend, eos_token="<|im_end|>", pad_token="<|im_end|>")


@pytest.fixture(scope="session")
def bos_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Llama-like: BOS before every text, no chatml tokens; its own template writes BOS itself."""
    backend = train_bpe(["<s>", "</s>"])
    put_first(backend, "<s>")
    return save_tokenizer(
        tmp_path_factory.mktemp("bos"),
        backend,
        bos_token={"__type": "AddedToken", "content": "<s>", "special": True},
        eos_token="</s>",
        chat_template="{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
    )


@pytest.fixture(scope="session")
def llama3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Llama-3-like: its four control tokens, and BOS before every text."""
    backend = train_bpe(LLAMA3)
    put_first(backend, "<|begin_of_text|>")
    folder = tmp_path_factory.mktemp("llama3")
    return save_tokenizer(folder, backend, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")


@pytest.fixture(scope="session")
def sentencepiece_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mistral-like: ▁ before the first word, byte fallback, and BOS before every text."""
    backend = train_sentencepiece()
    put_first(backend, "<s>")
    folder = tmp_path_factory.mktemp("sentencepiece")
    return save_tokenizer(folder, backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


# Loaded anew for each test, since a tokenizer may be given tokens.


@pytest.fixture
def chatml_tokenizer(chatml_folder: Path) -> Tokenizer:
    return load_tokenizer(str(chatml_folder))


@pytest.fixture
def bos_tokenizer(bos_folder: Path) -> Tokenizer:
    return load_tokenizer(str(bos_folder))


@pytest.fixture
def llama3_tokenizer(llama3_folder: Path) -> Tokenizer:
    return load_tokenizer(str(llama3_folder))


@pytest.fixture
def sentencepiece_tokenizer(sentencepiece_folder: Path) -> Tokenizer:
    return load_tokenizer(str(sentencepiece_folder))


WriteRows = Callable[..., Path]


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Writes rows as a JSONL file of the test's folder."""

    def write(rows: list[Any], name: str = "rows.jsonl") -> Path:
        file = tmp_path / name
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return file

    return write


def user(content: str) -> Message:
    return Message(role="user", content=content)


def assistant(content: str) -> Message:
    return Message(role="assistant", content=content)


def system(content: str) -> Message:
    return Message(role="system", content=content)


def preference(prompt: str = "Name a noble gas.", chosen: str = "Neon.", rejected: str = "Oxygen.", **more: Any) -> Preference:
    """A pair with a prompt of one turn."""
    return Preference(prompt=(user(prompt),), chosen=chosen, rejected=rejected, **more)


def config(**values: Any) -> DataConfig:
    """A configuration whose source is never opened, unless a test names one."""
    return DataConfig(**{"datasets": ("triplets",)} | values)
