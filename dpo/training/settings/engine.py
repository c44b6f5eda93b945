"""Chooses the engine of a run: packed, or padded if packed cannot compute the same numbers."""

__all__ = ["why_padded", "why_padded_by_flags"]

from transformers import PreTrainedModel

from dpo.engine.support import why_padded_by_architecture
from dpo.training.settings.fields import TrainingFields


def why_padded(args: TrainingFields, model: PreTrainedModel) -> str | None:
    """Find out why the packed engine cannot train a model with these flags.

    Args:
        args: The run's flags.
        model: The policy, before it is wrapped.

    Returns:
        The reason, as a clause that can follow "because". None if the packed engine can be used.
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
        return "the router's auxiliary loss needs the padded engine (--router_aux_loss_coef 0 turns the loss off)"
    return None


def why_padded_by_flags(args: TrainingFields) -> str | None:
    """Like why_padded, for the reasons that depend on the flags alone."""
    if args.train_sampling_strategy not in ("random", "sequential"):
        return f"--train_sampling_strategy {args.train_sampling_strategy} needs padded batches"
    if args.sync_ref_model:
        return "--sync_ref_model needs the padded engine"
    if args.neftune_noise_alpha:
        return "--neftune_noise_alpha scales noise by the row length, and a row of the packed engine has many pairs"
    return None
