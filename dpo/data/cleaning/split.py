"""Holding pairs out by prompt, so that no prompt stands on both sides."""

__all__ = ["opening_key", "prompt_key", "split_by_prompt", "text_key"]

import hashlib
from collections import Counter
from collections.abc import Sequence

from dpo.records import Message, Preference


def prompt_key(preference: Preference) -> bytes:
    """16 bytes that are equal where two prompts are."""
    return conversation_key(preference.prompt)


def opening_key(preference: Preference) -> bytes:
    """16 bytes that are equal where two prompts are up to their first user turn, as those of one conversation are."""
    first = next(i for i, message in enumerate(preference.prompt) if message.role == "user")
    return conversation_key(preference.prompt[: first + 1])


def conversation_key(messages: Sequence[Message]) -> bytes:
    return text_key("\0".join(f"{message.role}\0{message.content}" for message in messages))


def text_key(text: str) -> bytes:
    """16 bytes that are equal where two texts are."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def split_by_prompt(keys: Sequence[bytes], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to train on and to hold out.

    Prompts are taken in an order that depends on the seed and the prompts alone, and held out whole, up to and
    including the one that reaches the fraction.

    Args:
        keys: One prompt_key for each pair, or another that says what must stay together, (N,).
        fraction: Share of the N pairs to hold out, in [0, 1).
        seed: Chooses the order.

    Returns:
        (train, held_out), each ascending, together 0 to N - 1. With 10 prompts of one pair each and 0.2: 8 and 2.
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
