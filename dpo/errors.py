"""The tree of errors that a user can cause.

    DPOError                 exit code 2, no traceback; the message says what was expected, what was found, what to do
    ├── ConfigError          a flag, a YAML key or a DeepSpeed value is unknown, wrong, or contradicts another one
    ├── AdapterError         an adapter is unknown, registered twice, or breaks the adapter contract
    ├── SourceError          rows cannot be read: missing file, broken JSON, missing columns, unreachable Hub
    ├── TemplateError        a template is unknown, is not valid Jinja, or does not fit the tokenizer
    ├── TokenizerError       a tokenizer cannot be loaded, or differs from the one that trains
    ├── DataError            the rows were read, but the result cannot be trained on
    └── ModelError           a model cannot be loaded, or does not support what was asked for

A row that cannot become a pair is not an error. It becomes a `dpo.records.Drop`, and the data report counts its reason.
"""

__all__ = [
    "AdapterError",
    "ConfigError",
    "DPOError",
    "DataError",
    "ModelError",
    "SourceError",
    "TemplateError",
    "TokenizerError",
    "unknown_name",
]

from collections.abc import Iterable
from difflib import get_close_matches


class DPOError(Exception):
    """A mistake that the user can correct. The user sees the message, without a traceback."""

    exit_code = 2


class ConfigError(DPOError):
    """A flag, a YAML key or a DeepSpeed value is unknown, wrong, or contradicts another one."""


class AdapterError(DPOError):
    """An adapter is unknown, registered twice, or breaks the adapter contract."""


class SourceError(DPOError):
    """Rows cannot be read."""


class TemplateError(DPOError):
    """A template is unknown, is not valid Jinja, or does not fit the tokenizer."""


class TokenizerError(DPOError):
    """A tokenizer cannot be loaded, or differs from the one that trains."""


class DataError(DPOError):
    """The rows were read, but the result cannot be trained on."""


class ModelError(DPOError):
    """A model cannot be loaded, or does not support what was asked for."""


def unknown_name(kind: str, name: str, known: Iterable[str], *, shown: Iterable[str] | None = None) -> str:
    """Build the message for an unknown name, with the most similar names and a list of the known ones.

    Args:
        kind: What the name stands for, such as "adapter".
        name: The name as the user wrote it.
        known: All known names.
        shown: The names to list, if all of them are too many to read. Default: all.
    """
    known = sorted(known)
    near = get_close_matches(name.lower(), known, n=3, cutoff=0.75 if len(name) > 3 else 0.6)
    guess = f" Did you mean {' or '.join(near)}?" if near else ""
    listed = known if shown is None else sorted(set(shown))
    others = f", and {len(known) - len(listed)} more" if len(listed) < len(known) else ""
    return f"unknown {kind} '{name}'.{guess}\n  Available: {', '.join(listed)}{others}"
