"""Which engine a run gets: packed, or padded where packed cannot give the same numbers."""

__all__ = ["why_padded", "why_padded_by_flags"]

from transformers import PreTrainedModel

from dpo.engine.support import why_padded_by_architecture
from dpo.training.settings.fields import TrainingFields


def why_padded(args: TrainingFields, model: PreTrainedModel) -> str | None:
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


def why_padded_by_flags(args: TrainingFields) -> str | None:
    """The reason that flags alone give, whatever the model."""
    if args.train_sampling_strategy not in ("random", "sequential"):
        return f"--train_sampling_strategy {args.train_sampling_strategy} is for padded batches"
    if args.sync_ref_model:
        return "--sync_ref_model is computed there"
    if args.neftune_noise_alpha:
        return "--neftune_noise_alpha scales noise by the length of a row, which is a whole pack otherwise"
    return None
