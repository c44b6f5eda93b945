"""LoRA adapters: small matrices that are trained beside a model's frozen layers.

Hu et al. 2021, arXiv:2106.09685; QLoRA: Dettmers et al. 2023, arXiv:2305.14314.
"""

__all__ = [
    "REFERENCE",
    "base_model",
    "check_added_tokens",
    "check_loaded_adapter",
    "complete_reference_adapter",
    "describe_adapter",
    "describe_reference",
    "disable_dropout",
    "lora_config",
    "prepare_policy",
    "quantization",
    "reference_adapter",
    "zero_stage",
]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel, set_seed
from transformers.pytorch_utils import Conv1D

from dpo.errors import ConfigError, ModelError
from dpo.models.locating import LocatedModel
from dpo.training.settings.resolving import TrainingConfig

LAYERS = (nn.Linear, Conv1D)
REFERENCE = "ref"
"""Name of the frozen copy of an adapter. TRL uses the same one."""


def check_added_tokens(config: TrainingConfig, added_tokens: Sequence[str]) -> None:
    """Refuse new control tokens where an adapter is trained.

    Raises:
        ConfigError: if tokens were added.
    """
    if added_tokens and config.trains_adapter:
        raise ConfigError(
            f"--add_control_tokens adds {', '.join(added_tokens)}, and an adapter does not train their embeddings."
            "\n  Choose a --template whose tokens the model has, such as 'model', or train the whole model first."
        )


def quantization(config: TrainingConfig) -> BitsAndBytesConfig | None:
    """The quantization of QLoRA: nf4, with quantized constants. None without --load_in_4bit."""
    if not config.load_in_4bit:
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=config.dtype,
    )


def lora_config(config: TrainingConfig, model: PreTrainedModel, *, revision: str | None = None) -> LoraConfig | None:
    """PEFT's configuration of the adapter that the flags describe, None without --lora_rank.

    Args:
        config: The run's settings.
        model: The base model. Its weights are not read.
        revision: The base model's revision on the Hub. It is saved with the adapter.

    Raises:
        ConfigError: if a target is not a layer of the model, or is its head. The message lists the candidates.
    """
    if config.lora_rank is None:
        return None
    if config.lora_target_modules:
        check_targets(config.lora_target_modules, model)
    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=2 * config.lora_rank if config.lora_alpha is None else config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.lora_target_modules or "all-linear",  # in PEFT this excludes the head
        use_dora=config.use_dora,
        use_rslora=config.use_rslora,
        revision=revision,
        task_type="CAUSAL_LM",
    )


def describe_adapter(adapter: LoraConfig) -> str:
    """One line about a new adapter, for the run's output."""
    kind = "DoRA" if adapter.use_dora else "LoRA"
    layers = (
        "all linear layers" if isinstance(adapter.target_modules, str) else ", ".join(sorted(adapter.target_modules))
    )
    scale = "alpha / sqrt(rank)" if adapter.use_rslora else "alpha / rank"
    return f"{kind}, rank {adapter.r}, alpha {adapter.lora_alpha:g} ({scale}), on {layers}"


def describe_reference(located: LocatedModel) -> str:
    """One line about the reference of a run with an adapter, for its output."""
    if located.adapter is None:
        return f"{located.base}, the model without the adapter"
    return f"the adapter {located.adapter} as it is now, on {located.base}"


def check_targets(targets: list[str], model: PreTrainedModel) -> None:
    head = model.get_output_embeddings()
    layers = [name for name, module in model.named_modules() if isinstance(module, LAYERS) and module is not head]
    candidates = sorted({name.rpartition(".")[2] for name in layers})
    of_head = [name for name, module in model.named_modules() if module is head]
    for target in targets:
        if any(name == target or name.endswith(f".{target}") for name in of_head):
            raise ConfigError(
                f"--lora_target_modules {target}: the head cannot have an adapter: log-probabilities are computed from "
                f"its weights.\n  Candidates: {', '.join(candidates)}"
            )
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            raise ConfigError(
                f"--lora_target_modules {target}: {type(model).__name__} has no such layer.\n"
                f"  Candidates: {', '.join(candidates)}"
            )


def check_loaded_adapter(model: PreTrainedModel | PeftModel) -> None:
    """Refuse a loaded adapter that covers the head. check_targets does the same for a new one.

    Raises:
        ModelError: if it covers the head.
    """
    if isinstance(model, PeftModel) and isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise ModelError(
            "--model_name_or_path is an adapter that covers the head, which is not supported: log-probabilities are "
            "computed from the head's weights.\n  Merge the adapter first: dpo merge"
        )


def base_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def add_adapter(model: PreTrainedModel, adapter: PeftConfig, config: TrainingConfig) -> PeftModel:
    """Put a new adapter on a model, the same one for the same seed.

    Args:
        model: The base model. Its layers are replaced in place.
        adapter: The adapter's configuration.
        config: The run's settings.
    """
    set_seed(config.seed)
    is_quantized = getattr(model, "is_loaded_in_4bit", False)
    # ZeRO-3 gathers parameters into buffers of one dtype, so the adapter takes the model's. PEFT's default is float32.
    in_float32 = zero_stage(config) != 3 or is_quantized
    adapted: PeftModel = get_peft_model(model, adapter, autocast_adapter_dtype=in_float32)
    return adapted


def prepare_policy(
    model: PreTrainedModel | PeftModel, adapter: PeftConfig | None, config: TrainingConfig, *, copies_adapter: bool
) -> PreTrainedModel | PeftModel:
    """Put a new adapter on the policy where one is given, and make an adapter ready for training.

    Args:
        model: The model, or one with an adapter whose training continues.
        adapter: A new adapter's configuration.
        config: The run's settings.
        copies_adapter: Whether the reference of an adapter whose training continues is a frozen copy of it.
    """
    if adapter is not None:
        model = add_adapter(base_model(model), adapter, config)
    elif isinstance(model, PeftModel) and copies_adapter:
        copy_adapter_as_reference(model)
    if isinstance(model, PeftModel):
        prepare_adapter_training(model, config)
    return model


def prepare_adapter_training(model: PeftModel, config: TrainingConfig) -> None:
    """Make a model with an adapter ready for gradient checkpointing and for DeepSpeed.

    Args:
        model: With the adapter.
        config: The run's settings, whose gradient_checkpointing_kwargs may change.
    """
    if config.gradient_checkpointing:
        if zero_stage(config) == 3:  # where non-reentrant checkpointing finds gathered parameters gone (trl#2514)
            config.gradient_checkpointing_kwargs = {
                **(config.gradient_checkpointing_kwargs or {}),
                "use_reentrant": True,
            }
        model.enable_input_require_grads()
    if config.deepspeed and getattr(model, "is_loaded_in_4bit", False):
        # DeepSpeed keeps float32 master weights. DoRA's magnitudes take steps that bfloat16 cannot represent.
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_magnitude_vector" not in name:
                parameter.data = parameter.data.to(torch.bfloat16)


def disable_dropout(model: nn.Module) -> None:
    """Turn off the dropout of a model's own layers. That of a LoRA adapter is the adapter's setting, and stays."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and ".lora_dropout." not in name:
            module.p = 0.0


def copy_adapter_as_reference(model: PeftModel) -> None:
    """Keep a frozen copy of an adapter whose training continues: the reference is the adapter as it is now.

    The copy has no dropout.
    """
    model.add_adapter(REFERENCE, model.peft_config["default"])
    complete_reference_adapter(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and name.endswith(f".lora_dropout.{REFERENCE}"):
            module.p = 0.0


@contextmanager
def reference_adapter(model: PeftModel) -> Iterator[None]:
    """Make a model with an adapter compute what its reference computes.

    That is the frozen copy of the adapter where there is one, else the model without its adapter.
    """
    if REFERENCE not in model.peft_config:
        with model.disable_adapter():
            yield
        return
    trained = model.active_adapter
    model.set_adapter(REFERENCE)
    try:
        yield
    finally:
        model.set_adapter(trained)


def complete_reference_adapter(model: nn.Module) -> None:
    """Copy every parameter of the trained adapter to the reference adapter, whatever kind of parameter it is.

    TRL (1.16) copies parameters with ".default." in their names. PEFT's names end with ".default" for LoRA on
    embeddings, single tokens and IA3, which would begin anew in the reference.
    """
    if not (isinstance(model, PeftModel) and REFERENCE in model.peft_config):
        return
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        if "default" in parts:
            copy = model.get_parameter(".".join(REFERENCE if part == "default" else part for part in parts))
            copy.data.copy_(parameter.data)


def zero_stage(config: TrainingConfig) -> int:
    """The ZeRO stage of a run, 0 without DeepSpeed."""
    zero = config.deepspeed.get("zero_optimization", {}) if isinstance(config.deepspeed, dict) else {}
    return int(zero.get("stage", 0))
