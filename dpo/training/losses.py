"""Losses on log-probabilities of pairs, as pure functions."""

__all__ = ["sigmoid_loss"]

import torch
from torch.nn import functional


def sigmoid_loss(
    chosen_logps: torch.Tensor,
    rejected_logps: torch.Tensor,
    ref_chosen_logps: torch.Tensor,
    ref_rejected_logps: torch.Tensor,
    *,
    beta: float,
) -> torch.Tensor:
    """DPO loss per pair: -log sigmoid(beta x (policy logratio - reference logratio)).

    Rafailov et al. 2023, arXiv:2305.18290, Eq. 7.

    Args:
        chosen_logps: Log-probabilities of the chosen completions, summed, nats, float32 (N,).
        rejected_logps: The same of the rejected ones.
        ref_chosen_logps: The reference's of the chosen ones.
        ref_rejected_logps: The reference's of the rejected ones.
        beta: Strength of the KL penalty, dimensionless.

    Returns:
        Loss per pair in nats, (N,), not reduced. Equal logratios give log 2 = 0.6931.
    """
    logits = (chosen_logps - rejected_logps) - (ref_chosen_logps - ref_rejected_logps)
    return -functional.logsigmoid(beta * logits)
