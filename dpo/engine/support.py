"""Decides which architectures the packed engine can run."""

__all__ = ["why_padded_by_architecture"]

from transformers import PreTrainedModel

LAYER_TYPES = {"full_attention", "sliding_attention"}
"""Layer types that the packed engine supports. A recurrent layer would carry the state of one pair into the next."""


def why_padded_by_architecture(model: PreTrainedModel) -> str | None:
    """Return why the architecture of a model needs the padded engine, whatever the flags are.

    Args:
        model: A causal language model.

    Returns:
        The reason, for a message. None if the packed engine can run the model.
    """
    if not model.is_backend_compatible():
        return f"{type(model).__name__} does not use transformers' attention interface"
    if other := sorted(set(getattr(model.config.get_text_config(), "layer_types", None) or ()) - LAYER_TYPES):
        return f"{type(model).__name__} has layers of type {', '.join(other)}"
    return None
