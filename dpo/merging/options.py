"""The options of a merge, and their checks. No torch."""

__all__ = ["PROMPTS", "MergeOptions"]

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import split_state_dict_into_shards_factory

from dpo.errors import ConfigError

PROMPTS = (
    "The capital of Peru is Lima, and that of Chile is",
    "def area(width, height):\n    return",
    "Two, three, five, seven, eleven: the next prime is",
    "Dear neighbour, the parcel you are waiting for has been left with",
    "Wasser besteht aus Wasserstoff und",
    "Question: Which gas do plants take in?\nAnswer:",
    "She opened the old atlas, and between two pages she found",
    "12 * 12 = 144, 13 * 13 = 169, 14 * 14 =",
)
"""Texts of several kinds. Only the logits are compared, so good answers do not matter."""


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """The options of a merge."""

    base: str
    """Name of the base for the report, as the user or the adapter gives it."""
    adapter: str
    output: Path
    dtype: str | None = None
    """float32, float16 or bfloat16; None keeps the stored dtype of each weight."""
    max_shard_size: str = "5GB"
    check_prompts: int = 4
    trust_remote_code: bool = False

    def check(self) -> None:
        """Refuse values that are out of range.

        Raises:
            ConfigError: if there is such a value. The message gives the range.
        """
        if not 0 <= self.check_prompts <= len(PROMPTS):
            raise ConfigError(f"--check_prompts {self.check_prompts}: expected 0 to {len(PROMPTS)}")
        check_shard_size(self.max_shard_size)


def check_shard_size(size: str) -> None:
    """Refuse a text that is not a size.

    Raises:
        ConfigError: if it is not. The message shows examples.
    """
    try:  # with no tensors, so that only the size is parsed
        split_state_dict_into_shards_factory({}, get_storage_size=len, filename_pattern="", max_shard_size=size)
    except (OverflowError, ValueError) as error:
        raise ConfigError(f"--max_shard_size {size}: expected a size such as 5GB or 500MB") from error
