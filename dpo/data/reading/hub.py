"""Rows of data sets on the Hub."""

__all__ = ["load_hub_dataset"]

from typing import Any

from dpo.errors import SourceError


def load_hub_dataset(hub_id: str, split: str | None, *, stream: bool = False) -> Any:
    """A split of a data set on the Hub: streamed, or downloaded once and read from the datasets library's cache."""
    import datasets

    try:
        return datasets.load_dataset(hub_id, split=split, streaming=stream)
    except Exception as error:  # whatever the Hub, the network or the cache say, the user's way out is the same
        raise SourceError(
            f"the Hub data set '{hub_id}', split '{split}', cannot be loaded: {type(error).__name__}: {error}\n"
            "  Check the network and the name, or pass a local copy: ADAPTER=path/to/rows.jsonl"
        ) from error
