"""What a user may ask of a merge, and what can be seen to be wrong with it. No torch."""

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
"""Of several kinds; the answers are of no matter."""


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """What the user asks for, beside the models."""

    base: str
    """Name for the account: what the user or the adapter calls it."""
    adapter: str
    output: Path
    dtype: str | None = None
    """float32, float16 or bfloat16; None keeps what each weight is stored in."""
    max_shard_size: str = "5GB"
    check_prompts: int = 4
    trust_remote_code: bool = False

    def check(self) -> None:
        """Refuse values out of their range.

        Raises:
            ConfigError: saying what is in it.
        """
        if not 0 <= self.check_prompts <= len(PROMPTS):
            raise ConfigError(f"--check_prompts {self.check_prompts}: expected 0 to {len(PROMPTS)}")
        check_shard_size(self.max_shard_size)


def check_shard_size(size: str) -> None:
    """Refuse what is no size.

    Raises:
        ConfigError: showing what is one.
    """
    try:  # of no tensors: their sizes and names are asked of no one
        split_state_dict_into_shards_factory({}, get_storage_size=len, filename_pattern="", max_shard_size=size)
    except (OverflowError, ValueError) as error:
        raise ConfigError(f"--max_shard_size {size}: expected a size such as 5GB or 500MB") from error
