"""Which base an adapter is merged into: the one it was trained on, unless the user vouches for another."""

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
    """Follow an adapter to its base.

    Args:
        adapter: Folder or Hub id of the adapter.
        model: Folder or Hub id of the base, or `embedded`; None takes the one that the adapter names.
        other_base: Whether the base may have another name than the adapter has for it.
        revision: Branch, tag or commit of a Hub base. None takes the one that the adapter names for its base.

    Raises:
        ModelError: there is no adapter, or it stands on another model.
        TokenizerError: there is no such folder or Hub id.
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
            "  Leave --model out, or pass --other_base where that base has only been moved or renamed."
        )
    base = locate(model, revision=revision or (located.base_revision if is_named else None))
    if base.adapter is not None:
        raise ModelError(f"--model {model} is an adapter itself.\n  Merge it into its own base first.")
    tokenizer = located.tokenizer if located.tokenizer == located.adapter else base.base
    return replace(located, base=base.base, base_revision=base.base_revision, tokenizer=tokenizer)


def place_of(model: str) -> str:
    """One spelling for all names of a folder; a Hub id as it is."""
    return model if is_hub_id(model) else str(Path(model).expanduser().resolve())
