"""What an adapter changes of its base, known without the base's weights: each tensor's merged value is PEFT's own."""

__all__ = ["AdaptedModel"]

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict
from peft.tuners.lora import Embedding, Linear, LoraLayer
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from dpo.errors import ModelError
from dpo.models.locating import LocatedModel

WRAPPED = re.compile(r"\.(base_layer|token_adapter|modules_to_save\.default)(?=\.)")
"""What PEFT puts into the names of a base's parameters."""
MISMATCH = re.compile(r"size mismatch for (\S+): .*?Size\(\[(.*?)\]\) from checkpoint, .*?Size\(\[(.*?)\]\)")
"""What torch says of a tensor with another shape."""
ONE_BY_ONE = (Linear, Embedding, TrainableTokensLayer)
"""PEFT's layers that stand for one weight, and so are merged without looking at another."""
KEEPS_THE_BASE = (True, False, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights under which loading an adapter leaves the base's weights as they are."""


@dataclass(frozen=True, kw_only=True)
class AdaptedModel:
    """A base without weights, and an adapter on it with its own."""

    shapes: Mapping[str, torch.Size]
    """Of the base's parameters and buffers, by name."""
    layers: Mapping[str, BaseTunerLayer]
    """PEFT's layers by the names of the base's modules that they adapt."""
    given: Mapping[str, torch.Tensor]
    """What the adapter brings whole, by the parameter it replaces: modules_to_save, trained biases."""
    tied: Mapping[str, str]
    """Parameters that are another one under a second name, and that one's name."""
    entangled: str | None
    """Why merging needs the whole base at once; None where it goes tensor by tensor."""
    parameter_of: Callable[[str], str | None]
    """The parameter that a checkpoint's tensor is loaded into as it stands, None where loading converts it."""

    @classmethod
    def of(cls, located: LocatedModel, config: PretrainedConfig, *, trust_remote_code: bool = False) -> "AdaptedModel":
        """Put an adapter on a base that is all shapes.

        Args:
            located: The adapter.
            config: The base's.
            trust_remote_code: For models with code of their own.

        Raises:
            ModelError: it is no LoRA adapter, or does not fit the base.
        """
        assert located.adapter is not None
        adapter_config = read_adapter_config(located.adapter, located.adapter_revision)
        base = hollow_model(config, located.base, trust_remote_code=trust_remote_code)
        state = base.state_dict()
        hollow = [*base.parameters()]  # kept, so that no later parameter has the id of one of them
        ids = {id(parameter) for parameter in hollow}
        parameter_of = renaming(base, state)
        entangled = None
        if adapter_config.init_lora_weights not in KEEPS_THE_BASE:
            entangled = f"init_lora_weights={adapter_config.init_lora_weights!r} takes part of the base's weights away"
            adapter_config.init_lora_weights = True  # for the shapes, all the same
        adapted = load_onto(base, located, adapter_config).get_base_model()
        layers = {name: module for name, module in adapted.named_modules() if isinstance(module, BaseTunerLayer)}
        for name, layer in layers.items():
            if not isinstance(layer, ONE_BY_ONE):
                entangled = f"{name} has an adapter of the kind {type(layer).__name__}"
        return cls(
            shapes={name: tensor.shape for name, tensor in state.items()},
            layers={WRAPPED.sub("", f"{name}.").rstrip("."): layer for name, layer in layers.items()},
            given={
                plain: parameter.detach()
                for name, parameter in adapted.named_parameters(remove_duplicate=False)
                if id(parameter) not in ids and (plain := WRAPPED.sub("", name)) in state
            },
            tied=dict(base.all_tied_weights_keys),
            entangled=entangled,
            parameter_of=parameter_of,
        )

    @property
    def num_lora_layers(self) -> int:
        return sum(isinstance(layer, LoraLayer) for layer in self.layers.values())

    @property
    def num_replaced(self) -> int:
        """Parameters that the adapter brings whole, and has no layer for."""
        return len(self.given.keys() - {f"{name}.weight" for name in self.layers})

    def changed(self) -> set[str]:
        """Names of the base's parameters that merging changes."""
        names = set(self.given)
        for name, layer in self.layers.items():
            names.add(f"{name}.weight")
            if trains_bias(layer):
                names.add(f"{name}.bias")
        return names

    def sharing(self, name: str) -> set[str]:
        """The names of one tied parameter, this one among them."""
        root = self.tied.get(name, name)
        return {root, *(other for other, its in self.tied.items() if its == root)}

    def parted(self) -> list[str]:
        """Names of tied parameters that become parameters of their own, since the adapter changes one of them."""
        changed = self.changed()
        return sorted(name for name in {*self.tied, *self.tied.values()} if self.sharing(name) & changed)

    @torch.no_grad()
    def merge(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """A parameter of the merged model.

        Args:
            name: The parameter's.
            weight: The base's value.

        Returns:
            The merged value, float32; the very same tensor where the adapter leaves it alone.

        Raises:
            ModelError: its shape is not the base's, or the result is not finite.
        """
        if weight.shape != self.shapes[name]:
            raise ModelError(
                f"{name}: its file has the shape {tuple(weight.shape)}, config.json asks for "
                f"{tuple(self.shapes[name])}.\n  Weights and config.json are not of one model."
            )
        weight = self.given.get(name, weight)
        module, _, own = name.rpartition(".")
        layer = self.layers.get(module)
        if layer is None or (own == "bias" and not trains_bias(layer)):
            return weight
        base = layer.get_base_layer()
        hollow = dict(base.named_parameters())
        for key, parameter in hollow.items():
            value = weight.float() if key == own else parameter.data
            setattr(base, key, nn.Parameter(value, requires_grad=False))
        try:
            layer.merge(safe_merge=True)
        except (NotImplementedError, RuntimeError, ValueError) as error:
            raise ModelError(f"{module}: the adapter cannot be merged here: {error}") from error
        merged: torch.Tensor = getattr(base, own).data
        for key, parameter in hollow.items():
            setattr(base, key, parameter)
        layer.merged_adapters.clear()
        return merged


def trains_bias(layer: BaseTunerLayer) -> bool:
    return any(getattr(layer, "lora_bias", {}).values())


def read_adapter_config(adapter: str, revision: str | None) -> Any:
    """PEFT's configuration of a LoRA adapter.

    Raises:
        ModelError: it is of another kind, or cannot be read.
    """
    try:
        config = PeftConfig.from_pretrained(adapter, revision=revision)
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise ModelError(f"--adapter {adapter}: PEFT cannot read its adapter_config.json: {error}") from error
    kind = getattr(config.peft_type, "value", config.peft_type)
    if kind != "LORA":
        raise ModelError(f"--adapter {adapter}: expected a LoRA adapter (rsLoRA, DoRA, QLoRA too), found {kind}")
    if config.layer_replication:
        raise ModelError(
            f"--adapter {adapter}: layer_replication repeats the base's layers, which no merged weight can say.\n"
            "  Use base and adapter as they are."
        )
    return config


def hollow_model(config: PretrainedConfig, name: str, *, trust_remote_code: bool) -> PreTrainedModel:
    """A model whose every weight has its shape, on the CPU, and one zero behind it instead of memory.

    PEFT moves an adapter to the device of the layer it is put on. On the meta device its weights would be lost.
    """
    try:
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, trust_remote_code=trust_remote_code
            )
    except (ImportError, OSError, ValueError) as error:
        raise ModelError(f"model {name}: cannot be built from its config.json: {error}") from error
    for module in model.modules():
        for key, parameter in [*module.named_parameters(recurse=False)]:
            setattr(module, key, nn.Parameter(torch.zeros(()).expand(parameter.shape), requires_grad=False))
    model.tie_weights()
    return model


def renaming(model: PreTrainedModel, state: Mapping[str, torch.Tensor]) -> Callable[[str], str | None]:
    """How transformers, on loading, finds the parameter of a checkpoint's tensor."""
    transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    prefix = model.base_model_prefix

    def parameter_of(key: str) -> str | None:
        name, converted = rename_source_key(key, renamings, converters, prefix, state)
        if name not in state and key in state:
            return key
        return None if converted is not None else name

    return parameter_of


def load_onto(base: PreTrainedModel, located: LocatedModel, config: Any) -> PeftModel:
    """An adapter's weights on a base.

    Raises:
        ModelError: what the adapter has and what the base takes are not the same.
    """
    assert located.adapter is not None
    does_not_fit = f"--adapter {located.adapter} does not fit {located.base}: "
    config.base_model_name_or_path = None  # PEFT warns of any other
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tied weights, which are parted below where they must be
            model = get_peft_model(base, config, low_cpu_mem_usage=True)
    except ValueError as error:  # there is nothing of the names that it targets
        raise ModelError(f"{does_not_fit}{error}") from error
    try:
        weights = load_peft_weights(located.adapter, device="cpu", revision=located.adapter_revision)
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"--adapter {located.adapter}: its weights cannot be read: {error}") from error
    try:
        result = set_peft_model_state_dict(model, weights, low_cpu_mem_usage=True)
    except KeyError as error:  # PEFT's way to miss one of modules_to_save
        raise ModelError(f"{does_not_fit}the adapter's file lacks {error}") from error
    except RuntimeError as error:
        raise ModelError(does_not_fit + explain_mismatch(str(error))) from error
    if result.unexpected_keys:
        raise ModelError(f"{does_not_fit}the base has no place for {some(result.unexpected_keys)}")
    if missing := [key for key in result.missing_keys if "lora_" in key]:
        raise ModelError(f"{does_not_fit}the adapter's file lacks {some(missing)}")
    return model


def explain_mismatch(message: str) -> str:
    """Torch's list of wrong shapes as one sentence about the first."""
    found = MISMATCH.search(message)
    if found is None:
        return message
    name, theirs, ours = found.groups()
    advice = "Pass the base that the adapter was trained on"
    if "lora_" not in name:
        advice += ": one with embeddings that were resized is saved first, and passed with --other_base"
    return f"{plain_name(name)} has the shape ({theirs}), the base takes ({ours}).\n  {advice}."


def some(keys: Iterable[str]) -> str:
    first, *others = map(plain_name, keys)
    return f"{first} (and {len(others)} more)" if others else first


def plain_name(key: str) -> str:
    return key.removeprefix("base_model.model.").replace(".default", "")
