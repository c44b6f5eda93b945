"""Files of models, in a folder or on the Hugging Face Hub."""

__all__ = ["check_model_name", "find_file", "is_hub_id", "reach_hub", "read_json", "weights_state"]

import json
from functools import cache
from pathlib import Path
from typing import Any

from dpo.errors import TokenizerError
from dpo.folders import files_fingerprint, similar_path

WEIGHTS = ("*.safetensors", "*.bin")
PATIENCE_S = 5
"""How long the Hub may take to answer at all."""


def find_file(model: str, name: str, revision: str | None = None, *, optional: bool = False) -> Path | None:
    """A file of a model folder, or of the Hub's repository of that id; None where the model has no such file.

    Args:
        model: Folder or Hub id.
        name: The file's name.
        revision: Branch, tag or commit on the Hub.
        optional: Whether a file that is not in the Hub's cache counts as not there when the Hub cannot be asked.

    Raises:
        TokenizerError: the folder is missing, or the Hub cannot be reached.
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
    except Exception as error:  # whatever the Hub or the network say, the user's way out is the same
        raise unreachable(model, revision, error) from error


def check_model_name(model: str) -> None:
    """Refuse a path at which there is no folder. The Hub is not asked.

    Raises:
        TokenizerError: naming the path.
    """
    if Path(model).is_file():
        raise TokenizerError(f"model {model} is a file.\n  Expected the folder of a model, or its Hub id.")
    if not Path(model).is_dir() and not is_hub_id(model):
        raise TokenizerError(
            f"model {model}: there is no such folder.{similar_path(model)}\n"
            "  Expected the folder of a model, or its Hub id, such as org/name."
        )


def is_hub_id(model: str) -> bool:
    """Whether a name can be one of the Hub's: it is no path, and nothing of that name is here."""
    return model.count("/") <= 1 and not model.startswith((".", "/", "~")) and not Path(model).exists()


def unreachable(model: str, revision: str | None, error: Exception) -> TokenizerError:
    at = f" at revision {revision}" if revision else ""
    return TokenizerError(
        f"model {model}: there is no such folder, and the Hub gave no such model{at}.{similar_path(model)}\n"
        f"  {type(error).__name__}: {error}\n"
        "  Check the spelling and the network, or pass the path of a model folder."
    )


def weights_state(model: str, name: str, revision: str | None = None) -> str:
    """Changes when a model's weights may have: names, sizes and times of a folder's files, or the Hub's commit.

    Args:
        model: Folder or Hub id.
        name: A file that it has, such as config.json.
        revision: Branch, tag or commit on the Hub.

    Raises:
        TokenizerError: it is not there.
    """
    folder = Path(model)
    if folder.is_dir():
        return files_fingerprint(sorted(file for kind in WEIGHTS for file in folder.glob(kind)))
    file = find_file(model, name, revision)
    return "" if file is None else file.parent.name  # the cache has a folder for each commit


def read_json(file: Path | None) -> dict[str, Any]:
    """The object in a file, empty where there is no file.

    Raises:
        TokenizerError: it is no JSON object.
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
    """Whether the Hub can be asked. Where it cannot, its libraries are told to look into their caches alone."""
    import datasets
    import huggingface_hub
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        try:
            if huggingface_hub.get_session().head(constants.ENDPOINT, timeout=PATIENCE_S).status_code < 400:
                return True
        except Exception:  # whatever the network says, there is no Hub
            pass
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True  # or each of their calls waits for it again
    return False
