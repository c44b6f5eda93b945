"""Loading of data sets from the Hub."""

__all__ = ["load_hub_dataset"]

from typing import Any

from dpo.errors import SourceError


def load_hub_dataset(hub_id: str, split: str | None, *, stream: bool = False) -> Any:
    """Load a split of a Hub data set: streamed, or downloaded once and read from the cache of the datasets library.

    Raises:
        SourceError: if the data set cannot be loaded.
    """
    import datasets

    try:
        return datasets.load_dataset(hub_id, split=split, streaming=stream)
    except Exception as error:  # the advice to the user is the same for any failure of the Hub, network or cache
        raise SourceError(
            f"the Hub data set '{hub_id}', split '{split}', cannot be loaded: {type(error).__name__}: {error}\n"
            "  Check the name and the network, or pass a local copy: ADAPTER=path/to/rows.jsonl"
        ) from error
