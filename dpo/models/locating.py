"""What a model's name may mean: a folder, a Hub id, the embedded model, or a LoRA adapter on one of these. No torch."""

__all__ = ["ADAPTER_CONFIG", "LocatedModel", "locate"]

import json
from dataclasses import dataclass

from dpo.errors import ModelError
from dpo.hub import find_file, is_hub_id
from dpo.models.embedded import find_model

ADAPTER_CONFIG = "adapter_config.json"
"""The file of PEFT's that makes a folder an adapter."""


@dataclass(frozen=True, kw_only=True)
class LocatedModel:
    """Where a model's weights and tokenizer lie."""

    base: str
    """Folder or Hub id of whole weights."""
    base_revision: str | None = None
    """Branch, tag or commit of it on the Hub; None is the main branch, and in a folder what is there."""
    adapter: str | None = None
    """Folder or Hub id of an adapter on them."""
    adapter_revision: str | None = None
    """Of the adapter, as base_revision."""
    tokenizer: str
    """Folder or Hub id of the tokenizer: the adapter's own where it has one."""

    @property
    def tokenizer_revision(self) -> str | None:
        """Of the tokenizer, as base_revision."""
        return self.adapter_revision if self.tokenizer == self.adapter else self.base_revision


def locate(name: str, *, revision: str | None = None) -> LocatedModel:
    """Follow a name to its weights.

    Args:
        name: Folder, Hub id, `embedded`, or folder or Hub id of an adapter.
        revision: Branch, tag or commit of a Hub id. The base of an adapter is taken at the one that the adapter was
            trained on; where the name is an adapter's folder, which has none itself, this one goes before it.

    Raises:
        ModelError: an adapter that does not say on which model it stands.
        TokenizerError: there is no such folder or Hub id.
    """
    model = find_model(name)
    file = find_file(model, ADAPTER_CONFIG, revision, optional=True)
    if file is None:
        return LocatedModel(base=model, base_revision=revision if is_hub_id(model) else None, tokenizer=model)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        base, base_revision = config["base_model_name_or_path"], config.get("revision")
    except (ValueError, LookupError, TypeError) as error:
        raise ModelError(f"{file}: expected an adapter's configuration, with base_model_name_or_path") from error
    if not isinstance(base, str) or not base:
        raise ModelError(
            f"{file}: base_model_name_or_path is {base!r}: it does not say on which model the adapter stands.\n"
            "  Write the base model's folder or Hub id there."
        )
    has_tokenizer = find_file(model, "tokenizer_config.json", revision, optional=True) is not None
    base = find_model(base)
    if not is_hub_id(model):
        base_revision, revision = revision or base_revision, None
    return LocatedModel(
        base=base,
        base_revision=base_revision if is_hub_id(base) else None,
        adapter=model,
        adapter_revision=revision,
        tokenizer=model if has_tokenizer else base,
    )
