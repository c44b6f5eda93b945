"""Reads a model's context length and end tokens from its configuration files. No torch."""

__all__ = ["Limits", "read_limits"]

from dataclasses import dataclass
from typing import Any

from dpo.hub import find_file, read_json
from dpo.models.locating import LocatedModel

CONTEXT_NAMES = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a model's answers."""

    context: int | None
    """Context length: most tokens of prompt and answer together. None if the configuration does not name one."""
    end_ids: tuple[int, ...]
    """Token ids that end an answer, according to the model's configuration."""


def read_limits(located: LocatedModel) -> Limits:
    """Read the limits of a model. For an adapter, these are the limits of its base model.

    Args:
        located: Folder or Hub id of the model.
    """
    config = read_json(find_file(located.base, "config.json", located.base_revision))
    config |= config.get("text_config") or {}
    generation = read_json(find_file(located.base, "generation_config.json", located.base_revision, optional=True))
    return Limits(
        context=next((config[name] for name in CONTEXT_NAMES if config.get(name)), None),
        end_ids=ids_of(generation.get("eos_token_id", config.get("eos_token_id"))),
    )


def ids_of(value: Any) -> tuple[int, ...]:
    """Return eos_token_id as a tuple. A configuration contains no end token, one, or several."""
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
