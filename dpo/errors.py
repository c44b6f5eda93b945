"""Every error that a user can cause, as one tree.

    DPOError                 exit code 2, no traceback: says what was expected, found, and what to do
    ├── ConfigError          a flag, a YAML key or a DeepSpeed value is unknown, wrong or contradicts another
    ├── AdapterError         an adapter is unknown, registered twice, or breaks the adapter contract
    ├── SourceError          rows cannot be read: missing file, broken JSON, missing columns, no Hub
    ├── TemplateError        a template is unknown, is no valid Jinja, or does not fit the tokenizer
    ├── TokenizerError       a tokenizer cannot be loaded or disagrees with the one that trains
    ├── DataError            reading went well, but what came out cannot be trained on
    └── ModelError           a model cannot be loaded or cannot do what was asked

A row that cannot become a pair is no error: it is a `dpo.records.Drop`, counted with its reason.
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
    """A mistake the user can mend. The message is all the user sees."""

    exit_code = 2


class ConfigError(DPOError):
    """A flag, a YAML key or a DeepSpeed value is unknown, wrong or contradicts another."""


class AdapterError(DPOError):
    """An adapter is unknown, registered twice, or breaks the adapter contract."""


class SourceError(DPOError):
    """Rows cannot be read."""


class TemplateError(DPOError):
    """A template is unknown, is no valid Jinja, or does not fit the tokenizer."""


class TokenizerError(DPOError):
    """A tokenizer cannot be loaded or disagrees with the one that trains."""


class DataError(DPOError):
    """What came out of the pipeline cannot be trained on."""


class ModelError(DPOError):
    """A model cannot be loaded or cannot do what was asked."""


def unknown_name(kind: str, name: str, known: Iterable[str], *, shown: Iterable[str] | None = None) -> str:
    """Say that a name is unknown, what it resembles and what there is.

    Args:
        kind: What the name should have been, such as "adapter".
        name: What the user wrote.
        known: Every name there is.
        shown: Those to list, where all would be too many to read. Default: all.
    """
    known = sorted(known)
    near = get_close_matches(name.lower(), known, n=3, cutoff=0.75 if len(name) > 3 else 0.6)
    guess = f" Did you mean {' or '.join(near)}?" if near else ""
    listed = known if shown is None else sorted(set(shown))
    others = f", and {len(known) - len(listed)} more" if len(listed) < len(known) else ""
    return f"unknown {kind} '{name}'.{guess}\n  there is: {', '.join(listed)}{others}"
