"""Builds the trainer of a run: chooses the engine, the adapter and the reference."""

__all__ = ["build_trainer", "explain_refusals"]

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dpo.data.pipeline import PreparedData
from dpo.engine.attention import choose_backend
from dpo.engine.reference_cache import ReferenceCache, weights_fingerprint
from dpo.errors import ConfigError
from dpo.models.attention import attention_of
from dpo.models.embedded import EMBEDDED, HUB_ID
from dpo.models.locating import ADAPTER_CONFIG, LocatedModel
from dpo.training.distributed import is_fsdp, say
from dpo.training.policy.lora import base_model, check_loaded_adapter, describe_adapter, describe_reference, lora_config
from dpo.training.policy.model import load_model
from dpo.training.reports.model_card import model_card
from dpo.training.settings.engine import why_padded
from dpo.training.settings.objective import objective_of
from dpo.training.settings.objective_checks import check_padded
from dpo.training.settings.resolving import TrainingConfig
from dpo.training.trainers.answers import AnswerTrainer
from dpo.training.trainers.base import RunTrainer
from dpo.training.trainers.packed import PackedTrainer
from dpo.training.trainers.padded import PreferenceTrainer
from dpo.training.trainers.reference import Reference


@contextmanager
def explain_refusals(policy: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Turn what the libraries refuse of a model and its flags into an error for the user.

    Raises:
        ConfigError: instead of an ImportError, NotImplementedError or ValueError.
    """
    try:
        yield
    except (ImportError, NotImplementedError, ValueError) as error:
        merge = ", or merge the adapter first: dpo merge" * isinstance(policy, PeftModel)
        raise ConfigError(
            f"{type(base_model(policy)).__name__} cannot be trained with these flags: {error}\n"
            f"  Leave out the flag that the message names{merge}."
        ) from error


def build_trainer(
    located: LocatedModel,
    config: TrainingConfig,
    tokenizer: PreTrainedTokenizerBase,
    prepared: PreparedData,
    policy: PreTrainedModel | PeftModel,
) -> RunTrainer:
    """Build the trainer of the stage and engine that the flags name, or the padded one where packed is not supported.

    Args:
        located: Where the model lies.
        config: The run's settings.
        tokenizer: The run's tokenizer, with its chat template.
        prepared: The prepared rows.
        policy: The model to train.

    Raises:
        ConfigError: if a flag does not apply to this model.
        ModelError: if the model or its adapter cannot be trained.
    """
    check_loaded_adapter(policy)
    base = base_model(policy)
    if config.router_aux_loss_coef and not hasattr(base.config.get_text_config(), "output_router_logits"):
        raise ConfigError(
            f"--router_aux_loss_coef {config.router_aux_loss_coef}: {type(base).__name__} has no experts.\n"
            "  Leave the flag out."
        )

    def load_reference() -> PreTrainedModel | PeftModel:
        return load_model(located, config, tokenizer, prepared.added_tokens, is_reference=True)

    # The saved model must pad as its tokenizer does.
    base.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    if base.generation_config is not None:
        base.generation_config.pad_token_id = tokenizer.pad_token_id
    adapter = lora_config(config, policy, revision=located.base_revision)
    options: dict[str, Any] = {
        "model": policy,
        "args": config,
        "train_dataset": prepared.train,
        "eval_dataset": prepared.eval,
        "processing_class": tokenizer,
        "peft_config": adapter,
        "card": lambda trainer: model_card(
            config,
            HUB_ID if config.model_name_or_path == EMBEDDED else str(config.model_name_or_path),
            prepared,
            trainer.state.log_history,
            trainer.state.global_step,
        ),
    }
    needs_reference = objective_of(config).needs_reference
    # The policy contains the reference of an adapter: the model without it, or a frozen copy of it.
    is_adapted = adapter is not None or located.adapter is not None
    if adapter is not None:
        say(f"adapter: {describe_adapter(adapter)}")
    if is_adapted and needs_reference:
        say(f"reference: {describe_reference(located)}")

    reason = why_padded(config, base) if config.engine == "packed" else None
    if reason is not None or config.engine == "padded":
        say(f"engine: padded, because {reason}" if reason else "engine: padded")
        check_padded(config, reason)
        if config.stage == "sft":
            return AnswerTrainer(**options)
        return PreferenceTrainer(ref_model=None if is_adapted else load_reference(), **options)

    options["backend"] = choose_backend(attention_of(base))
    if not needs_reference:
        say("engine: packed" + ", no reference" * (config.stage == "dpo"))
        return PackedTrainer(**options)
    cache = reference_cache(located, config, prepared, options["backend"])
    say(f"engine: packed, reference {'computed live' if cache is None else f'kept in {config.reference_folder}'}")
    if cache is None:
        return PackedTrainer(ref_model=None if is_adapted else load_reference(), **options)
    # DeepSpeed and FSDP shard the policy only when training starts, so it cannot compute the reference before.
    by_policy = adapter is not None and not (config.deepspeed or is_fsdp(config))
    return PackedTrainer(reference=Reference(load=None if by_policy else load_reference, cache=cache), **options)


def reference_cache(
    located: LocatedModel, config: TrainingConfig, prepared: PreparedData, backend: str
) -> ReferenceCache | None:
    """The cache for this reference's log-probabilities, None where they are computed live.

    Its identity lists everything that changes the numbers, and nothing else.
    """
    if config.reference_folder is None:
        return None
    weights = weights_fingerprint(located.base, located.base_revision)
    if located.adapter is not None:
        weights |= weights_fingerprint(located.adapter, located.adapter_revision, configuration=ADAPTER_CONFIG)
    identity: dict[str, Any] = {
        "weights": weights,
        "computes": [str(config.dtype), bool(config.bf16), bool(config.fp16), config.device.type, backend],
        "ld_alpha": config.ld_alpha,
        "added_tokens": [*prepared.added_tokens, config.seed] if prepared.added_tokens else [],
    }
    if config.load_in_4bit:
        identity["quantized"] = "nf4"
    return ReferenceCache(config.reference_folder, identity)
