"""Where a model's answers end: its context and its end tokens, from its configuration files. No torch."""

__all__ = ["Limits", "read_limits"]

from dataclasses import dataclass
from typing import Any

from dpo.hub import find_file, read_json
from dpo.models.locating import LocatedModel

CONTEXT_NAMES = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What bounds an answer."""

    context: int | None
    """Most tokens of prompt and answer together; None where the configuration names no bound."""
    end_ids: tuple[int, ...]
    """The tokens at which the model's author lets an answer end."""


def read_limits(located: LocatedModel) -> Limits:
    """The limits of a model, or of the one that an adapter stands on."""
    config = read_json(find_file(located.base, "config.json", located.base_revision))
    config |= config.get("text_config") or {}
    generation = read_json(find_file(located.base, "generation_config.json", located.base_revision, optional=True))
    return Limits(
        context=next((config[name] for name in CONTEXT_NAMES if config.get(name)), None),
        end_ids=ids_of(generation.get("eos_token_id", config.get("eos_token_id"))),
    )


def ids_of(value: Any) -> tuple[int, ...]:
    """Configurations hold no end token, one, or several."""
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
