"""Fixtures: tiny models and tokenizers, rows, the real launchers, and caches that are separate from the user's."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Set these variables before the libraries of the Hub are imported, because each library reads them only once.
HUB = tempfile.mkdtemp(prefix="dpo-tests-hub-")
atexit.register(shutil.rmtree, HUB, ignore_errors=True)
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": HUB, "HF_HUB_CACHE": f"{HUB}/hub", "HF_DATASETS_CACHE": f"{HUB}/sets"}

import pytest  # noqa: E402
import tokenizers  # noqa: E402
from tokenizers import decoders, models, pre_tokenizers, trainers  # noqa: E402

from dpo.data.rendering.tokenization import Tokenizer, load_tokenizer  # noqa: E402
from tests.builders import (  # noqa: E402
    CHATML,
    LLAMA3,
    ROOT,
    put_first,
    save_tiny_llama,
    save_tokenizer,
    train_byte_level,
    train_sentencepiece,
)

WriteRows = Callable[..., Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-golden", action="store_true", help="tests/training/test_golden.py writes tests/golden/losses.json anew"
    )


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder for each test."""
    folder = tmp_path / "dpo-cache"
    monkeypatch.setenv("DPO_CACHE", str(folder))
    return folder


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Function that writes rows to a JSONL file in the test's folder."""

    def write(rows: list[Any], name: str = "rows.jsonl") -> Path:
        file = tmp_path / name
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return file

    return write


@pytest.fixture(scope="session")
def chatml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen-like tokenizer: chatml's control tokens, no BOS, no chat template."""
    return save_tokenizer(tmp_path_factory.mktemp("chatml"), train_byte_level(CHATML), eos_token="<|im_end|>")


@pytest.fixture(scope="session")
def bos_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama-like tokenizer: BOS before every text, no chatml tokens, a chat template that writes BOS."""
    backend = train_byte_level(["<s>", "</s>"])
    put_first(backend, "<s>")
    return save_tokenizer(
        tmp_path_factory.mktemp("bos"),
        backend,
        bos_token={"__type": "AddedToken", "content": "<s>", "special": True},
        eos_token="</s>",
        chat_template="{{ bos_token }}{% for m in messages %}{{ m.role + ':' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}",
    )


@pytest.fixture(scope="session")
def llama3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama-3-like tokenizer: Llama 3's control tokens, and BOS before every text."""
    backend = train_byte_level(LLAMA3)
    put_first(backend, "<|begin_of_text|>")
    folder = tmp_path_factory.mktemp("llama3")
    return save_tokenizer(folder, backend, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")


@pytest.fixture(scope="session")
def sentencepiece_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mistral-like tokenizer: a space before the first word, byte fallback, and BOS before every text."""
    backend = train_sentencepiece()
    put_first(backend, "<s>")
    folder = tmp_path_factory.mktemp("sentencepiece")
    return save_tokenizer(folder, backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def tiny_llamas(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models with the same configuration and tokenizer, and different weights."""
    first, second = (save_tiny_llama(tmp_path_factory.mktemp("llama"), seed=seed) for seed in (0, 1))
    return first, second


# Tokenizers are loaded again for each test, because tests may add tokens to them.


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


LAUNCH_TIMEOUT_S = 300

QUESTIONS = [f"What is {a} plus {b}?" for a in range(1, 7) for b in range(1, 5)]


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pairs as triplets. The chosen answer is the sum alone, the rejected one a padded sentence with it."""
    file = tmp_path_factory.mktemp("rows") / "sums.jsonl"
    triplets = [
        {"prompt": q, "chosen": f"{i}.", "rejected": f"Well, let me think about {q} I would say {i}."}
        for i, q in enumerate(QUESTIONS)
    ]
    file.write_text("\n".join(map(json.dumps, triplets)))
    return file


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with 2 layers of width 32, and a byte-level tokenizer with chatml's tokens and no template."""
    import torch  # imported here, because the tests of the data pipeline do not need it
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, set_seed

    folder = tmp_path_factory.mktemp("tiny")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        QUESTIONS,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    tokenizer.save_pretrained(folder)
    set_seed(0)
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=True,
        )
    )
    model.to(torch.float32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that all launched runs of a test session share. Its models are shared by all workers of pytest-xdist."""
    cache = tmp_path_factory.mktemp("cache")
    if "PYTEST_XDIST_WORKER" in os.environ:
        models = tmp_path_factory.getbasetemp().parent / "models"
        models.mkdir(exist_ok=True)
        (cache / "models").symlink_to(models)
    return cache


Launch = Callable[..., subprocess.CompletedProcess[str]]


def launch_environment(cache: Path) -> dict[str, str]:
    """The environment of a launched program: offline, one thread, this cache, and nothing of the user's settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "DPO_"))}
    return clean | {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "DPO_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def launch(session_cache: Path, tmp_path: Path) -> Launch:
    """Function that runs main.py with a launcher in a separate process, as a user does.

    It runs another script instead, or none where the launcher's words name a module.
    """

    def run(
        launcher: list[str], *flags: str, script: Path | None = ROOT / "main.py", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        bin_folder = Path(sys.executable).parent
        scripts = [] if script is None else [str(script)]
        command = [str(bin_folder / launcher[0]), *launcher[1:], *scripts, *flags]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=launch_environment(session_cache) | environment,
            capture_output=True,
            text=True,
            timeout=LAUNCH_TIMEOUT_S,
        )

    return run
