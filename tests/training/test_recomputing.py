"""Recomputing what costs little: the same numbers, less memory, no matrix product twice."""

import copy
from typing import Any

import pytest
import torch
from deepspeed.runtime.zero.linear import zero3_linear_wrap
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from dpo.training.recomputing import recompute_elementwise

from .test_packed_equality import build


class Allocations(TorchDispatchMode):
    """Knows the memory that operations have allocated and that something still holds."""

    def __init__(self) -> None:
        super().__init__()
        self.storages = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.storages[tensor.untyped_storage()] = None
        return result

    def num_bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.storages)


def step(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor], int, int]:
    """Of a forward and backward: logits, gradients, bytes kept in between, and operations of matrix products."""
    ids = torch.randint(10, 200, (2, 24), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)  # for dropout
    with FlopCounterMode(display=False) as counter:
        with Allocations() as allocations:
            logits = model(input_ids=ids, use_cache=False).logits
        kept = allocations.num_bytes()
        logits.square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), gradients, kept, counter.get_total_flops()


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen3", "gemma2", "cohere", "granite", "olmo2"])
@pytest.mark.parametrize("kind", ["whole", "lora", "zero3"])
def test_numbers_and_operations_stay_and_memory_falls(
    kind: str, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = build(architecture).train()
    if kind == "zero3":
        monkeypatch.setattr(torch.nn.functional, "linear", zero3_linear_wrap)
    if kind == "lora":
        config = LoraConfig(r=4, lora_dropout=0.2, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    other = copy.deepcopy(model)
    recompute_elementwise(other)
    logits, gradients, kept, operations = step(model)
    found_logits, found, found_kept, found_operations = step(other)
    assert torch.equal(found_logits, logits)
    assert gradients.keys() == found.keys()
    assert all(torch.equal(found[name], gradient) for name, gradient in gradients.items())
    assert found_operations == operations
    # Dropout before every adapter keeps more beside, and DeepSpeed's product its input.
    assert found_kept < {"whole": 0.85, "zero3": 0.93, "lora": 0.97}[kind] * kept
