"""Recomputing what costs little: the same numbers, less memory, no matrix product twice."""

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from dpo.engine.recomputing import recompute_elementwise
from tests.engine.test_equality import build


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
@pytest.mark.parametrize("kind", ["whole", "bfloat16", "lora", "hooked"])
def test_numbers_and_operations_stay_and_memory_falls(kind: str, architecture: str) -> None:
    model: Any = build(architecture).train()
    ended: Counter[str] = Counter()
    if kind == "lora":
        config = LoraConfig(r=4, lora_dropout=0.2, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    other = copy.deepcopy(model)
    recompute_elementwise(other)
    if kind == "hooked":  # as ZeRO-3 gathers and lets go
        for module in other.modules():
            module.register_forward_pre_hook(lambda *args: ended.update(["begun"]))
            module.register_forward_hook(lambda *args: ended.update(["ended"]))
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bfloat16"):
        logits, gradients, kept, operations = step(model)
        found_logits, found, found_kept, found_operations = step(other)
    assert torch.equal(found_logits, logits)
    assert gradients.keys() == found.keys()
    assert all(torch.equal(found[name], gradient) for name, gradient in gradients.items())
    assert found_operations == operations
    # Every module but the list of layers, and each layer's activation twice.
    assert ended["begun"] == ended["ended"] == (len(list(other.modules())) - 1 + 3 if kind == "hooked" else 0)
    # Dropout before every adapter keeps more beside, and where there are hooks down_proj keeps its input.
    assert found_kept < {"whole": 0.85, "bfloat16": 0.85, "hooked": 0.93, "lora": 0.97}[kind] * kept


@pytest.mark.parametrize(
    ("architecture", "norms"),
    [("llama", 7), ("qwen3", 13), ("gemma2", 13), ("gemma3_text", 19), ("cohere", 4), ("smollm3", 7), ("gpt2", 0)],
)
def test_every_norm_and_mlp_of_an_architecture_is_found_once(architecture: str, norms: int) -> None:
    model = build(architecture)
    plain = Counter(type(module).__name__ for module in model.modules())
    recompute_elementwise(model)
    recompute_elementwise(model)
    found = Counter(
        type(module).__mro__[1].__name__ for module in model.modules() if type(module).__mro__[1].__name__[0] == "_"
    )
    assert (found["_Norm"], found["_GatedMLP"]) == (norms, 3 if norms else 0)
    assert Counter(type(module).__name__ for module in model.modules()) == plain
    assert len({type(module) for module in model.modules()}) == len(plain)


def test_arguments_by_name_and_no_gradient_change_nothing() -> None:
    model = build("llama")
    layer, states = model.model.layers[0], torch.randn(1, 4, 32)
    expected = layer.mlp(layer.input_layernorm(states))
    recompute_elementwise(model)
    assert torch.equal(layer.mlp(x=layer.input_layernorm(hidden_states=states)), expected)
    with torch.no_grad():
        assert torch.equal(layer.mlp(x=layer.input_layernorm(hidden_states=states)), expected)
