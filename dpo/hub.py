"""Access to the files of a model, in a local folder or on the Hugging Face Hub."""

__all__ = ["check_model_name", "find_file", "is_hub_id", "reach_hub", "read_json", "weights_state"]

import json
from functools import cache
from pathlib import Path
from typing import Any

from dpo.errors import TokenizerError
from dpo.folders import files_fingerprint, similar_path

WEIGHTS = ("*.safetensors", "*.bin")
PATIENCE_S = 5
"""Seconds to wait for an answer from the Hub."""


def find_file(model: str, name: str, revision: str | None = None, *, optional: bool = False) -> Path | None:
    """Return the path of one file of a model, downloading it from the Hub if needed, or None if the model lacks it.

    Args:
        model: Folder or Hub id.
        name: Name of the file.
        revision: Branch, tag or commit on the Hub.
        optional: Whether to return None instead of an error if the Hub is unreachable and the file is not in the Hub's
            local cache.

    Raises:
        TokenizerError: if the folder does not exist, or the Hub cannot be reached.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    check_model_name(model)
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(model, name, revision=revision))
    except EntryNotFoundError as error:
        if isinstance(error, huggingface_hub.errors.LocalEntryNotFoundError) and not optional:
            raise unreachable(model, revision, error) from error
        return None
    except Exception as error:  # the advice to the user is the same for any failure of the Hub or the network
        raise unreachable(model, revision, error) from error


def check_model_name(model: str) -> None:
    """Check that a name is an existing folder or has the form of a Hub id. The Hub is not contacted.

    Raises:
        TokenizerError: if it is neither.
    """
    if Path(model).is_file():
        raise TokenizerError(f"model {model} is a file.\n  Expected a model folder or a Hub id, such as org/name.")
    if not Path(model).is_dir() and not is_hub_id(model):
        raise TokenizerError(
            f"model {model}: there is no such folder.{similar_path(model)}\n"
            "  Expected a model folder or a Hub id, such as org/name."
        )


def is_hub_id(model: str) -> bool:
    """Return whether a name can be a Hub id: it does not look like a path, and no local file has this name."""
    return model.count("/") <= 1 and not model.startswith((".", "/", "~")) and not Path(model).exists()


def unreachable(model: str, revision: str | None, error: Exception) -> TokenizerError:
    at = f" at revision {revision}" if revision else ""
    return TokenizerError(
        f"model {model}: there is no such folder, and the Hub did not provide the model{at}.{similar_path(model)}\n"
        f"  {type(error).__name__}: {error}\n"
        "  Check the spelling and the network, or pass the path of a model folder."
    )


def weights_state(model: str, name: str, revision: str | None = None) -> str:
    """Return a string that changes if the weights of a model may have changed.

    For a folder it is a hash of the names, sizes and modification times of the weight files; for a Hub id it is the
    commit.

    Args:
        model: Folder or Hub id.
        name: A file that the model has, such as config.json.
        revision: Branch, tag or commit on the Hub.

    Raises:
        TokenizerError: if the model is not found.
    """
    folder = Path(model)
    if folder.is_dir():
        return files_fingerprint(sorted(file for kind in WEIGHTS for file in folder.glob(kind)))
    file = find_file(model, name, revision)
    return "" if file is None else file.parent.name  # the Hub's local cache has one folder for each commit


def read_json(file: Path | None) -> dict[str, Any]:
    """Read the JSON object in a file. No file gives an empty object.

    Raises:
        TokenizerError: if the file is not a JSON object.
    """
    if file is None:
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{file}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{file}: expected a JSON object, found {type(content).__name__}")
    return content


@cache
def reach_hub() -> bool:
    """Return whether the Hub is reachable. If it is not, its libraries are switched to their local caches."""
    import datasets
    import huggingface_hub
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        try:
            if huggingface_hub.get_session().head(constants.ENDPOINT, timeout=PATIENCE_S).status_code < 400:
                return True
        except Exception:  # any failure means that the Hub is unreachable
            pass
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True  # otherwise each later call waits again
    return False
