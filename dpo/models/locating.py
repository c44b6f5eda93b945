"""Resolves a model's name: a folder, a Hub id, the embedded model, or a LoRA adapter for one of these. No torch."""

__all__ = ["ADAPTER_CONFIG", "LocatedModel", "locate"]

import json
from dataclasses import dataclass

from dpo.errors import ModelError
from dpo.hub import find_file, is_hub_id
from dpo.models.embedded import find_model

ADAPTER_CONFIG = "adapter_config.json"
"""PEFT's configuration file. A folder with this file is an adapter."""


@dataclass(frozen=True, kw_only=True)
class LocatedModel:
    """Folders or Hub ids of a model's weights, its adapter and its tokenizer."""

    base: str
    """Folder or Hub id of the full weights; with an adapter, of its base model."""
    base_revision: str | None = None
    """Branch, tag or commit of `base` on the Hub. None: the main branch, or `base` is a folder."""
    adapter: str | None = None
    """Folder or Hub id of an adapter for `base`. None: there is no adapter."""
    adapter_revision: str | None = None
    """Branch, tag or commit of `adapter` on the Hub. None: the main branch, or `adapter` is a folder."""
    tokenizer: str
    """Folder or Hub id of the tokenizer: the adapter if it has a tokenizer, else the base model."""

    @property
    def tokenizer_revision(self) -> str | None:
        """The revision of the model or adapter that the tokenizer comes from."""
        return self.adapter_revision if self.tokenizer == self.adapter else self.base_revision


def locate(name: str, *, revision: str | None = None) -> LocatedModel:
    """Find the weights, adapter and tokenizer that a model's name refers to.

    Args:
        name: Folder or Hub id of a model or of an adapter, or `embedded`.
        revision: Branch, tag or commit of a Hub id. If `name` is an adapter on the Hub, this is the adapter's revision,
            and the base model has the revision that the adapter was trained on. If `name` is an adapter in a folder,
            this overrides the revision of the base model.

    Raises:
        ModelError: if an adapter does not name its base model.
        TokenizerError: if no such folder or Hub id exists.
    """
    model = find_model(name)
    file = find_file(model, ADAPTER_CONFIG, revision, optional=True)
    if file is None:
        return LocatedModel(base=model, base_revision=revision if is_hub_id(model) else None, tokenizer=model)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        base, base_revision = config["base_model_name_or_path"], config.get("revision")
    except (ValueError, LookupError, TypeError) as error:
        raise ModelError(
            f"{file}: expected the configuration of an adapter, in JSON, with the key base_model_name_or_path.\n"
            "  Save the adapter again with PEFT, or add the base model's folder or Hub id there."
        ) from error
    if not isinstance(base, str) or not base:
        raise ModelError(
            f"{file}: base_model_name_or_path is {base!r}, expected the base model of the adapter.\n"
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
