"""Builds the objective from a run's flags: the losses, their weights and their options."""

__all__ = ["objective_of", "parse_losses"]

from collections.abc import Sequence
from dataclasses import fields

from dpo.errors import ConfigError
from dpo.objective.losses import LOSSES, LossOptions
from dpo.objective.terms import AnswerObjective, Objective, PairObjective
from dpo.training.settings.fields import TrainingFields


def objective_of(config: TrainingFields) -> Objective:
    """Build the objective of a run. Every name in config.loss_type must be in LOSSES."""
    if config.stage == "sft":
        return AnswerObjective()
    weights = config.loss_weights or [1.0] * len(config.loss_type)
    return PairObjective(
        terms=tuple((LOSSES[name], weight) for name, weight in zip(config.loss_type, weights, strict=True)),
        options=LossOptions(**{field.name: getattr(config, field.name) for field in fields(LossOptions)}),
        reference_free=config.reference_free,
        wants_confidences=config.use_weighting,
    )


def parse_losses(terms: Sequence[str], given: Sequence[float] | None = None) -> tuple[list[str], list[float]]:
    """Split losses into names and weights. ["sigmoid", "sft:0.2"] gives ["sigmoid", "sft"] and [1.0, 0.2].

    Args:
        terms: Losses as NAME or NAME:WEIGHT, as the user wrote them.
        given: Weights from --loss_weights, one for each term. The terms are then names without a weight.

    Returns:
        The names and their weights, in the order of the terms.

    Raises:
        ConfigError: if a weight is not a number above 0, the number of weights is wrong, a loss is named twice, or
            losses are separated by commas.
    """
    if given is not None:
        if len(given) != len(terms) or any(":" in term for term in terms):
            raise ConfigError(
                f"--loss_weights {' '.join(map(str, given))}: expected one number for each name in --loss_type, and "
                f"names without a weight; found --loss_type {' '.join(terms)}.\n  Or pass --loss sigmoid:1.0 sft:0.2"
            )
        terms = [f"{name}:{weight!r}" for name, weight in zip(terms, given, strict=True)]
    names, weights = [], []
    for term in terms:
        name, colon, weight = term.partition(":")
        try:
            weights.append(float(weight) if colon else 1.0)
        except ValueError:
            weights.append(float("nan"))
        if not 0 < weights[-1] < float("inf"):
            raise ConfigError(f"loss '{term}': expected NAME or NAME:WEIGHT with a weight above 0, such as sft:0.2")
        if "," in term:
            raise ConfigError(f"loss '{term}': separate several losses with spaces, as in --loss ipo sft:0.2")
        if name in names:
            raise ConfigError(f"loss '{name}' is named twice in {' '.join(terms)}: name it once, with its weight")
        names.append(name)
    return names, weights
