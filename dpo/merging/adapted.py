"""Determines which weights of its base an adapter changes, without loading the base, and merges one at a time.

PEFT's own layers compute every merged value.
"""

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
"""What PEFT inserts into the names of a base's parameters."""
MISMATCH = re.compile(r"size mismatch for (\S+): .*?Size\(\[(.*?)\]\) from checkpoint, .*?Size\(\[(.*?)\]\)")
"""Torch's message about a tensor whose shape differs."""
SINGLE_WEIGHT_LAYERS = (Linear, Embedding, TrainableTokensLayer)
"""PEFT's layers that adapt one weight, so that each can be merged without any other weight."""
KEEPS_THE_BASE = (True, False, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights with which loading an adapter does not change the base's weights."""


@dataclass(frozen=True, kw_only=True)
class AdaptedModel:
    """An adapter with its weights on a base without weights."""

    shapes: Mapping[str, torch.Size]
    """Name -> shape of the base's parameters and buffers."""
    layers: Mapping[str, BaseTunerLayer]
    """Name of a module of the base -> the PEFT layer that adapts it."""
    replacements: Mapping[str, torch.Tensor]
    """Name of a parameter -> the adapter's value that replaces it: modules_to_save, trained biases."""
    tied: Mapping[str, str]
    """Name of a tied parameter -> name of the parameter that it shares its value with."""
    entangled: str | None
    """Why merging needs the whole base at once; None if it works tensor by tensor."""
    parameter_of: Callable[[str], str | None]
    """Name of a checkpoint's tensor -> the parameter it is loaded into; None if loading converts the tensor."""

    @classmethod
    def of(cls, located: LocatedModel, config: PretrainedConfig, *, trust_remote_code: bool = False) -> "AdaptedModel":
        """Load an adapter onto a base that has shapes but no weights.

        Args:
            located: The adapter and its base.
            config: Configuration of the base.
            trust_remote_code: Whether code that comes with the model may run.

        Raises:
            ModelError: if it is not a LoRA adapter, or does not fit the base.
        """
        assert located.adapter is not None
        adapter_config = read_adapter_config(located.adapter, located.adapter_revision)
        base = hollow_model(config, located.base, trust_remote_code=trust_remote_code)
        state = base.state_dict()
        hollow = [*base.parameters()]  # keeps them alive, so that no later parameter gets the id of one of them
        ids = {id(parameter) for parameter in hollow}
        parameter_of = renaming(base, state)
        entangled = None
        if adapter_config.init_lora_weights not in KEEPS_THE_BASE:
            entangled = f"init_lora_weights={adapter_config.init_lora_weights!r} changes the base's weights"
            adapter_config.init_lora_weights = True  # the shapes do not depend on it
        adapted = load_onto(base, located, adapter_config).get_base_model()
        layers = {name: module for name, module in adapted.named_modules() if isinstance(module, BaseTunerLayer)}
        for name, layer in layers.items():
            if not isinstance(layer, SINGLE_WEIGHT_LAYERS):
                entangled = f"{name} has an adapter of type {type(layer).__name__}"
        return cls(
            shapes={name: tensor.shape for name, tensor in state.items()},
            layers={WRAPPED.sub("", f"{name}.").rstrip("."): layer for name, layer in layers.items()},
            replacements={
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
        """Number of parameters that the adapter replaces and has no PEFT layer for."""
        return len(self.replacements.keys() - {f"{name}.weight" for name in self.layers})

    def changed(self) -> set[str]:
        """Names of the base's parameters that merging changes."""
        names = set(self.replacements)
        for name, layer in self.layers.items():
            names.add(f"{name}.weight")
            if trains_bias(layer):
                names.add(f"{name}.bias")
        return names

    def sharing(self, name: str) -> set[str]:
        """All names of a tied parameter, the given one included."""
        root = self.tied.get(name, name)
        return {root, *(other for other, its in self.tied.items() if its == root)}

    def untied(self) -> list[str]:
        """Names of tied parameters that merging unties, because the adapter changes one of them."""
        changed = self.changed()
        return sorted(name for name in {*self.tied, *self.tied.values()} if self.sharing(name) & changed)

    @torch.no_grad()
    def merge(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Merge one parameter.

        Args:
            name: Name of the parameter.
            weight: Its value in the base.

        Returns:
            The merged value, float32; the given tensor itself if the adapter does not change it.

        Raises:
            ModelError: if its shape is not the base's, or the result is not finite.
        """
        if weight.shape != self.shapes[name]:
            raise ModelError(
                f"{name}: expected the shape {tuple(self.shapes[name])} from config.json, found "
                f"{tuple(weight.shape)} in the file.\n  The weights and config.json belong to different models."
            )
        weight = self.replacements.get(name, weight)
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
            raise ModelError(f"{module}: PEFT cannot merge the adapter of this module: {error}") from error
        merged: torch.Tensor = getattr(base, own).data
        for key, parameter in hollow.items():
            setattr(base, key, parameter)
        layer.merged_adapters.clear()
        return merged


def trains_bias(layer: BaseTunerLayer) -> bool:
    return any(getattr(layer, "lora_bias", {}).values())


def read_adapter_config(adapter: str, revision: str | None) -> Any:
    """Read PEFT's configuration of a LoRA adapter.

    Raises:
        ModelError: if it cannot be read, or belongs to another kind of adapter.
    """
    try:
        config = PeftConfig.from_pretrained(adapter, revision=revision)
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise ModelError(f"--adapter {adapter}: PEFT cannot read its adapter_config.json: {error}") from error
    kind = getattr(config.peft_type, "value", config.peft_type)
    if kind != "LORA":
        raise ModelError(f"--adapter {adapter}: expected a LoRA adapter (or rsLoRA, DoRA, QLoRA), found {kind}")
    if config.layer_replication:
        raise ModelError(
            f"--adapter {adapter}: layer_replication repeats layers of the base, which merged weights cannot express.\n"
            "  Use the base with the adapter, unmerged."
        )
    return config


def hollow_model(config: PretrainedConfig, name: str, *, trust_remote_code: bool) -> PreTrainedModel:
    """Build a model on the CPU in which every weight has its shape, but is one expanded zero that takes no memory.

    The meta device does not work: PEFT moves an adapter to the device of its layer, and would lose its weights there.
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
    """The mapping that transformers uses to load a checkpoint: name of a tensor -> name of its parameter."""
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
    """Load an adapter's weights onto a base.

    Raises:
        ModelError: if the adapter's weights do not match the base.
    """
    assert located.adapter is not None
    does_not_fit = f"--adapter {located.adapter} does not fit {located.base}: "
    config.base_model_name_or_path = None  # PEFT warns if it names a model other than this one
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tied weights, which AdaptedModel.untied handles
            model = get_peft_model(base, config, low_cpu_mem_usage=True)
    except ValueError as error:  # the base has no module with the target names
        raise ModelError(f"{does_not_fit}{error}") from error
    try:
        weights = load_peft_weights(located.adapter, device="cpu", revision=located.adapter_revision)
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"--adapter {located.adapter}: its weights cannot be read: {error}") from error
    try:
        result = set_peft_model_state_dict(model, weights, low_cpu_mem_usage=True)
    except KeyError as error:  # raised by PEFT if one of modules_to_save is missing
        raise ModelError(f"{does_not_fit}the adapter's file does not contain {error}") from error
    except RuntimeError as error:
        raise ModelError(does_not_fit + explain_mismatch(str(error))) from error
    if result.unexpected_keys:
        raise ModelError(f"{does_not_fit}the base has no layer for {first_of(result.unexpected_keys)}")
    if missing := [key for key in result.missing_keys if "lora_" in key]:
        raise ModelError(f"{does_not_fit}the adapter's file does not contain {first_of(missing)}")
    return model


def explain_mismatch(message: str) -> str:
    """Turn torch's list of wrong shapes into one sentence about the first one, with advice."""
    found = MISMATCH.search(message)
    if found is None:
        return message
    name, theirs, ours = found.groups()
    advice = "Pass the base that the adapter was trained on"
    if "lora_" not in name:
        advice += ". If its embeddings were resized, save the resized base and pass it with --other_base"
    return f"{plain_name(name)} has the shape ({theirs}), but the base needs ({ours}).\n  {advice}."


def first_of(keys: Iterable[str]) -> str:
    first, *others = map(plain_name, keys)
    return f"{first} (and {len(others)} more)" if others else first


def plain_name(key: str) -> str:
    return key.removeprefix("base_model.model.").replace(".default", "")
