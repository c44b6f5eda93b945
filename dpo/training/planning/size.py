"""Counts a model's parameters, and the memory that each device needs to train it."""

__all__ = ["Holding", "ModelSize", "holdings", "measure"]

from dataclasses import dataclass

import torch
from peft import PeftConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from dpo.errors import ModelError
from dpo.models.locating import LocatedModel
from dpo.training.policy.lora import lora_config
from dpo.training.settings.resolving import TrainingConfig

MASTER_BYTES = 4
"""Bytes of DeepSpeed's float32 copy of a trained weight."""
OPTIMIZER_BYTES = {"adafactor": 0, "rmsprop": 4, "sgd": 0}
"""Optimizer state per trained parameter, in bytes. Other optimizers are assumed to keep two float32, like Adam."""
ADAM_BYTES = 8
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """Parameter counts of a model. A tied head counts once."""

    architecture: str
    parameters: int
    """Parameters of the model, without an adapter."""
    trained: int
    """Trained parameters: all of them, or those of the adapter."""

    @property
    def adapter(self) -> int:
        """Parameters of the adapter; 0 if the whole model is trained."""
        return self.trained if self.trained != self.parameters else 0


@dataclass(frozen=True, kw_only=True)
class Holding:
    """Memory of one kind: weights, gradients or optimizer state."""

    name: str
    parameters: int
    bytes_each: float
    devices: int = 1
    """Number of devices that share them."""
    in_host_memory: bool = False

    @property
    def gib(self) -> float:
        return self.parameters * self.bytes_each / self.devices / GIB

    def __str__(self) -> str:
        spread = f" / {self.devices} devices" if self.devices > 1 else ""
        place = ", in host memory" if self.in_host_memory else ""
        return f"{self.name:<10}{self.gib:9.2f} GiB = {self.bytes_each:g} bytes x {self.parameters:,}{spread}{place}"


def measure(located: LocatedModel, config: TrainingConfig, *, adapter_by: TrainingConfig | None = None) -> ModelSize:
    """Count a model's parameters from its configuration, without loading weights.

    Args:
        located: The model, or an adapter on one.
        config: The run's flags.
        adapter_by: The flags of the earlier run that will produce the adapter, if this run continues training it.

    Raises:
        ConfigError: if the flags name layers for the adapter that the model does not have.
        ModelError: if the configuration cannot be read or is not one of a causal language model, or the existing
            adapter does not fit the model.
    """
    unset_hf_deepspeed_config()  # with ZeRO-3, transformers would let DeepSpeed shard the model
    try:
        pretrained = AutoConfig.from_pretrained(
            located.base, revision=located.base_revision, trust_remote_code=config.trust_remote_code
        )
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(pretrained, trust_remote_code=config.trust_remote_code)
    except (ImportError, OSError, ValueError) as error:
        raise ModelError(f"--model_name_or_path {located.base}: its configuration cannot be used: {error}") from error
    architecture, parameters = type(model).__name__, model.num_parameters()
    adapter = adapter_of(located, config, adapter_by, model)
    if adapter is None:
        return ModelSize(architecture=architecture, parameters=parameters, trained=parameters)
    try:
        with torch.device("meta"):
            adapted = get_peft_model(model, adapter)
    except ValueError as error:
        raise ModelError(f"adapter {located.adapter} does not fit {located.base}: {error}") from error
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    return ModelSize(architecture=architecture, parameters=parameters, trained=trained)


def adapter_of(
    located: LocatedModel, config: TrainingConfig, adapter_by: TrainingConfig | None, model: PreTrainedModel
) -> PeftConfig | None:
    """Configuration of the adapter that is trained, new or existing. None if the whole model is trained."""
    if located.adapter is None or adapter_by is not None:
        return lora_config(adapter_by or config, model)
    adapter = PeftConfig.from_pretrained(located.adapter, revision=located.adapter_revision)
    adapter.inference_mode = False
    return adapter


def holdings(size: ModelSize, config: TrainingConfig, *, devices: int) -> list[Holding]:
    """Memory per device for weights, gradients and optimizer state. Activations and buffers are not included.

    Rajbhandari et al. 2019, arXiv:1910.02054, section 3: half precision with Adam takes 2 + 2 + 12 bytes per parameter.
    ZeRO-1 shards the 12 bytes over the devices, ZeRO-2 also the gradients, ZeRO-3 everything. Without DeepSpeed, each
    device needs 4 + 4 + 8 bytes per parameter.

    Args:
        size: Parameter counts of the model.
        config: The run's flags.
        devices: Number of devices.

    Returns:
        Weights, gradients and optimizer state. For 8 devices, ZeRO-2 and a billion parameters they add up to
        2 + (2 + 12) / 8 = 3.75 billion bytes.
    """
    zero = config.deepspeed["zero_optimization"] if isinstance(config.deepspeed, dict) else {"stage": 0}
    stage, width = zero["stage"], config.dtype.itemsize
    parameters = size.parameters
    weights = Holding(
        name="weights",
        parameters=parameters + size.adapter,
        bytes_each=0.5 if config.load_in_4bit else width,
        devices=devices if stage == 3 else 1,
        in_host_memory=bool(zero.get("offload_param")),
    )
    gradients = Holding(
        name="gradients",
        parameters=size.trained,
        bytes_each=width if config.deepspeed else torch.float32.itemsize,
        devices=devices if stage >= 2 else 1,
    )
    optimizer = Holding(
        name="optimizer",
        parameters=size.trained,
        bytes_each=optimizer_bytes(config) + (MASTER_BYTES if config.deepspeed else 0),
        devices=devices if stage >= 1 else 1,
        in_host_memory=bool(zero.get("offload_optimizer")),
    )
    return [weights, gradients, optimizer]


def optimizer_bytes(config: TrainingConfig) -> int:
    """Bytes of optimizer state per trained parameter, without DeepSpeed's copy of the weights."""
    named = config.deepspeed.get("optimizer", {}).get("type") if isinstance(config.deepspeed, dict) else None
    name = str(named or getattr(config.optim, "value", config.optim)).lower()
    if "8bit" in name:
        return ADAM_BYTES // 4
    return next((size for prefix, size in OPTIMIZER_BYTES.items() if name.startswith(prefix)), ADAM_BYTES)
