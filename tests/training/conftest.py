"""A tiny model with a chatml tokenizer, a few rows, and the real launchers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, set_seed

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_TIMEOUT_S = 300

QUESTIONS = [f"What is {a} plus {b}?" for a in range(1, 7) for b in range(1, 5)]


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pairs as triplets: the bare sum over a padded one."""
    file = tmp_path_factory.mktemp("rows") / "sums.jsonl"
    triplets = [
        {"prompt": q, "chosen": f"{i}.", "rejected": f"Well, let me think about {q} I would say {i}."}
        for i, q in enumerate(QUESTIONS)
    ]
    file.write_text("\n".join(map(json.dumps, triplets)))
    return file


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random llama of 2 layers, 32 wide, with a byte-level tokenizer that knows chatml's tokens and no template."""
    folder = tmp_path_factory.mktemp("tiny")
    backend = Tokenizer(models.BPE())
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
    """A cache that the launched runs of a session share."""
    return tmp_path_factory.mktemp("cache")


Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def launch(session_cache: Path, tmp_path: Path) -> Launch:
    """Runs main.py as a user would, under a launcher, in a process of its own; or a script that runs more than that."""

    def run(
        launcher: list[str], *flags: str, script: Path = ROOT / "main.py", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        bin_folder = Path(sys.executable).parent
        command = [str(bin_folder / launcher[0]), *launcher[1:], str(script), *flags]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "DPO_"))}
        offline = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "DPO_CACHE": str(session_cache)}
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=clean | offline | {"OMP_NUM_THREADS": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=LAUNCH_TIMEOUT_S,
        )

    return run
