"""Which engine a run gets: packed, or padded where packed cannot give the same numbers."""

__all__ = ["why_padded", "why_padded_by_architecture", "why_padded_by_flags"]

from transformers import PreTrainedModel
from trl import DPOConfig

LAYER_TYPES = {"full_attention", "sliding_attention"}
"""Layers that packed attention computes. Recurrent ones would carry one pair's state into the next."""


def why_padded(args: DPOConfig, model: PreTrainedModel) -> str | None:
    """The reason why the packed engine cannot train a model as asked, or None.

    Args:
        args: The run's flags.
        model: The policy, not wrapped yet.
    """
    if reason := why_padded_by_architecture(model):
        return reason
    config = model.config.get_text_config()
    if getattr(config, "attention_dropout", 0) or (getattr(config, "attn_pdrop", 0) and not args.disable_dropout):
        return "the model has attention dropout"
    if reason := why_padded_by_flags(args):
        return reason
    coefficient = args.router_aux_loss_coef
    if coefficient is None:
        coefficient = getattr(config, "router_aux_loss_coef", 0.0)
    if hasattr(config, "output_router_logits") and coefficient:
        return "the router's auxiliary loss is computed there (--router_aux_loss_coef 0 does without)"
    return None


def why_padded_by_architecture(model: PreTrainedModel) -> str | None:
    """The reason that the model's layers give, whatever the flags."""
    if not model.is_backend_compatible():
        return f"{type(model).__name__} is outside transformers' attention interface"
    if other := sorted(set(getattr(model.config.get_text_config(), "layer_types", None) or ()) - LAYER_TYPES):
        return f"{type(model).__name__} has layers of {', '.join(other)}"
    return None


def why_padded_by_flags(args: DPOConfig) -> str | None:
    """The reason that flags alone give, whatever the model."""
    if args.train_sampling_strategy not in ("random", "sequential"):
        return f"--train_sampling_strategy {args.train_sampling_strategy} is for padded batches"
    if args.sync_ref_model:
        return "--sync_ref_model is computed there"
    if args.neftune_noise_alpha:
        return "--neftune_noise_alpha scales noise by the length of a row, which is a whole pack otherwise"
    return None
