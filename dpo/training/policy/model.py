"""Loads the policy, the reference model, and the tokenizer that is saved with the policy."""

__all__ = ["load_model", "load_tokenizer_for", "stop_at"]

from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from dpo.data.pipeline import PreparedData
from dpo.errors import ModelError, TokenizerError
from dpo.models.loading import load_causal_lm, load_chat_tokenizer
from dpo.models.locating import LocatedModel
from dpo.training.policy.lora import quantization
from dpo.training.settings.resolving import TrainingConfig

NUM_CHECKED_PAIRS = 8
"""Number of pairs whose prompt ids are compared with those of transformers' tokenizer."""


def load_model(
    located: LocatedModel,
    config: TrainingConfig,
    tokenizer: PreTrainedTokenizerBase,
    added_tokens: tuple[str, ...],
    *,
    is_reference: bool = False,
) -> PreTrainedModel | PeftModel:
    """Load a causal language model with the run's dtype and attention, and resize its embeddings for the tokenizer.

    Loading the same model twice gives the same weights, including new embedding rows.

    Args:
        located: The model, or an adapter on one.
        config: The run's flags.
        tokenizer: The run's tokenizer.
        added_tokens: Control tokens that were added because the model lacks them.
        is_reference: Whether to load the reference model, whose adapter is not trained.

    Raises:
        ModelError: if the model cannot be loaded.
    """

    def load(attention: str | None) -> PreTrainedModel | PeftModel:
        options: dict[str, Any] = {
            "attn_implementation": attention,
            "device_map": config.device_map,
            "quantization_config": quantization(config),
        }
        return load_causal_lm(
            located,
            dtype=config.dtype,
            trust_remote_code=config.trust_remote_code,
            is_trainable=not is_reference,
            **{name: value for name, value in options.items() if value is not None},
        )

    try:
        loaded = load(config.attention)
    except ModelError as error:
        # The architecture does not support flash attention. If the user did not ask for it, let transformers choose.
        if config.attn_implementation != "auto" or "attention" not in str(error).lower():
            raise
        loaded = load(None)
    if added_tokens and len(tokenizer) > loaded.get_input_embeddings().num_embeddings:
        # New rows are drawn from the distribution of the others, and must be the same for policy and reference.
        set_seed(config.seed)
        loaded.resize_token_embeddings(len(tokenizer))
    return loaded


def load_tokenizer_for(
    located: LocatedModel, config: TrainingConfig, prepared: PreparedData
) -> PreTrainedTokenizerBase:
    """Load transformers' tokenizer of a model, and give it the template that rendered the pairs.

    Args:
        located: The model.
        config: The run's flags.
        prepared: The run's data.

    Raises:
        TokenizerError: if it encodes a prompt differently from the prepared pairs.
    """
    tokenizer = load_chat_tokenizer(located, trust_remote_code=config.trust_remote_code)
    if prepared.added_tokens:
        tokenizer.add_special_tokens({"extra_special_tokens": list(prepared.added_tokens)})
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or prepared.end_of_turn
    tokenizer.chat_template = prepared.chat_template
    for pair in prepared.train.select(range(min(NUM_CHECKED_PAIRS, len(prepared.train)))):
        ids = tokenizer.apply_chat_template(pair["prompt"], add_generation_prompt=True, return_dict=False)
        if ids != pair["prompt_ids"]:
            place = next((i for i, (a, b) in enumerate(zip(ids, pair["prompt_ids"], strict=False)) if a != b), -1)
            raise TokenizerError(
                f"{pair['source']}, row {pair['row']}: transformers' tokenizer and tokenizer.json encode the prompt "
                f"differently, from token {place} on.\n"
                "  Training and inference would see different token ids. Save the tokenizer again with save_pretrained."
            )
    return tokenizer


def stop_at(model: PreTrainedModel | PeftModel, token_id: int) -> None:
    """Set the end token of generation, so that the saved model stops where it was trained to stop."""
    generation = model.generation_config
    assert generation is not None
    known = generation.eos_token_id
    known = [] if known is None else [known] if isinstance(known, int) else list(known)
    if token_id not in known:
        generation.eos_token_id = [*known, token_id]
