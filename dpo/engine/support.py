"""Which architectures the packed engine can run."""

__all__ = ["why_padded_by_architecture"]

from transformers import PreTrainedModel

LAYER_TYPES = {"full_attention", "sliding_attention"}
"""Layers that packed attention computes. Recurrent ones would carry one pair's state into the next."""


def why_padded_by_architecture(model: PreTrainedModel) -> str | None:
    """The reason that the model's layers give, whatever the flags."""
    if not model.is_backend_compatible():
        return f"{type(model).__name__} is outside transformers' attention interface"
    if other := sorted(set(getattr(model.config.get_text_config(), "layer_types", None) or ()) - LAYER_TYPES):
        return f"{type(model).__name__} has layers of {', '.join(other)}"
    return None
