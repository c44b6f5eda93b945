"""Split into training pairs and held-out pairs, by prompt, so that no prompt is on both sides."""

__all__ = ["opening_key", "prompt_key", "split_by_prompt", "text_key"]

import hashlib
from collections import Counter
from collections.abc import Sequence

from dpo.records import Message, Preference


def prompt_key(preference: Preference) -> bytes:
    """Return 16 bytes that are equal if two prompts are equal."""
    return conversation_key(preference.prompt)


def opening_key(preference: Preference) -> bytes:
    """Return 16 bytes that are equal if two prompts are equal up to the first user turn, as in one conversation."""
    first = next(i for i, message in enumerate(preference.prompt) if message.role == "user")
    return conversation_key(preference.prompt[: first + 1])


def conversation_key(messages: Sequence[Message]) -> bytes:
    return text_key("\0".join(f"{message.role}\0{message.content}" for message in messages))


def text_key(text: str) -> bytes:
    """Return 16 bytes that are equal if two texts are equal."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def split_by_prompt(keys: Sequence[bytes], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Split pairs into training pairs and held-out pairs.

    Prompts are taken in a random order that depends only on the seed and the prompts. Each prompt is held out with all
    of its pairs, until the fraction is reached.

    Args:
        keys: prompt_key of each pair, or another key that is equal for pairs that must stay together, (N,).
        fraction: Share of the N pairs to hold out, in [0, 1).
        seed: Seed of the random order.

    Returns:
        Indices (train, held_out), each ascending, together 0 to N - 1. For example, 10 prompts with one pair each and a
        fraction of 0.2 give 8 and 2.
    """
    wanted = round(len(keys) * fraction)
    held_out: set[bytes] = set()
    num_held_out = 0
    counts = Counter(keys)
    for key in sorted(counts, key=lambda key: hashlib.blake2b(key, salt=seed.to_bytes(8, "big", signed=True)).digest()):
        if num_held_out >= wanted:
            break
        held_out.add(key)
        num_held_out += counts[key]
    train = [i for i, key in enumerate(keys) if key not in held_out]
    return train, [i for i, key in enumerate(keys) if key in held_out]
