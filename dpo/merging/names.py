"""Finds the base of an adapter: the one it was trained on, unless the user explicitly names another one."""

__all__ = ["locate_base"]

from dataclasses import replace
from pathlib import Path

from dpo.errors import ModelError
from dpo.hub import is_hub_id
from dpo.models.embedded import find_model
from dpo.models.locating import ADAPTER_CONFIG, LocatedModel, locate


def locate_base(
    adapter: str, model: str | None = None, *, other_base: bool = False, revision: str | None = None
) -> LocatedModel:
    """Find the base of an adapter.

    Args:
        adapter: Folder or Hub id of the adapter.
        model: Folder or Hub id of the base, or `embedded`; None takes the base that the adapter names.
        other_base: Whether `model` may differ from the base that the adapter names.
        revision: Branch, tag or commit of a Hub base. None takes the one that the adapter names for its base.

    Raises:
        ModelError: if `adapter` is not an adapter, or was trained on another base.
        TokenizerError: if a folder or Hub id does not exist.
    """
    located = locate(adapter)
    if located.adapter is None:
        raise ModelError(f"--adapter {adapter}: expected a folder that PEFT saved, found no {ADAPTER_CONFIG} in it")
    if model is None:
        return replace(located, base_revision=revision or located.base_revision)
    is_named = place_of(find_model(model)) == place_of(located.base)
    if not other_base and not is_named:
        raise ModelError(
            f"--adapter {adapter} was trained on {located.base}, which is not --model {model}.\n"
            "  Leave --model out, or pass --other_base if that base was only moved or renamed."
        )
    base = locate(model, revision=revision or (located.base_revision if is_named else None))
    if base.adapter is not None:
        raise ModelError(f"--model {model} is an adapter, expected a whole model.\n  Merge it into its base first.")
    tokenizer = located.tokenizer if located.tokenizer == located.adapter else base.base
    return replace(located, base=base.base, base_revision=base.base_revision, tokenizer=tokenizer)


def place_of(model: str) -> str:
    """The resolved path of a folder, so that all its spellings compare equal; a Hub id unchanged."""
    return model if is_hub_id(model) else str(Path(model).expanduser().resolve())
