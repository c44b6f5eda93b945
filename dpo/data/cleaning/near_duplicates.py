"""Search for near duplicates: MinHash finds candidates, which are then compared in full.

Two pairs are near duplicates if their prompts, their chosen answers and their rejected answers are all similar. Two
texts are similar if at least 80 % of the five-word runs that occur in either text occur in both (Jaccard similarity,
Broder 1997). Each symbol counts as a word. Texts of fewer than ten words must be equal except for case and spaces.
Pairs that share only the prompt and one answer, as pairs of ranked answers do, are not near duplicates. For instruction
rows, prompt and answer are compared.
"""

__all__ = ["are_texts_alike", "find_near_duplicates", "signature"]

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from dpo.data.cleaning.words import runs_of, words
from dpo.records import Preference

RUN_WORDS = 5
SHORT_WORDS = 2 * RUN_WORDS
"""Texts of fewer words are compared as a whole, because a single word changes too many of their runs."""
SIMILARITY = 0.8
CANDIDATE_SIMILARITY = 0.5
"""Threshold of MinHash. It is lower, because MinHash misses some pairs near its threshold, and all pairs that it finds
are compared in full."""
NUM_HASHES = 128
"""Number of hashes in a signature."""
SCHEME = "affine32"

Parts = list[set[str]]
"""The runs of the prompt, of the chosen answer and, if there is one, of the rejected answer."""


def parts_of(preference: Preference) -> Parts:
    prompt = "\n".join(message.content for message in preference.prompt)
    return [shingles(text) for text in (prompt, *preference.answers)]


def shingles(text: str) -> set[str]:
    found = words(text, symbols=True)
    return runs_of(found, RUN_WORDS if len(found) >= SHORT_WORDS else SHORT_WORDS)


def signature(preference: Preference) -> bytes:
    """Return the MinHash signature of a pair, 4 * NUM_HASHES bytes.

    It covers the runs of all parts, each marked with its part. If two pairs are similar in every part, then their
    marked runs are at least as similar.
    """
    from datasketch import MinHash

    hashes = MinHash(NUM_HASHES, scheme=SCHEME)
    marked = (f"{part}{run}" for part, found in enumerate(parts_of(preference)) for run in found)
    hashes.update_batch([run.encode() for run in marked])
    return bytes(hashes.hashvalues.astype("<u4").tobytes())


def find_near_duplicates(signatures: Sequence[bytes], read: Callable[[int], Preference]) -> Iterator[tuple[int, int]]:
    """Yield the near duplicates, as (index, index of the earlier pair that is kept), by ascending index.

    The search needs about 5 KiB of memory for each pair.

    Args:
        signatures: Signature of each pair, (N,).
        read: Function that returns the pair with an index.
    """
    import numpy as np
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=CANDIDATE_SIMILARITY, num_perm=NUM_HASHES)
    parts = lru_cache(maxsize=10_000)(lambda i: parts_of(read(i)))
    for i, kept in enumerate(signatures):
        hashes = MinHash(NUM_HASHES, scheme=SCHEME, hashvalues=np.frombuffer(kept, "<u4"))
        alike = (j for j in sorted(index.query(hashes)) if are_alike(parts(i), parts(j)))
        if (original := next(alike, None)) is not None:
            yield i, original
        else:
            index.insert(i, hashes, check_duplication=False)


def are_alike(first: Parts, second: Parts) -> bool:
    return all(similarity(a, b) >= SIMILARITY for a, b in zip(first, second, strict=True))


def are_texts_alike(first: str, second: str) -> bool:
    """Return whether two texts are equal or similar."""
    return similarity(shingles(first), shingles(second)) >= SIMILARITY


def similarity(first: set[str], second: set[str]) -> float:
    """Return the Jaccard similarity: the size of the intersection divided by the size of the union."""
    if not first and not second:
        return 1.0
    return len(first & second) / len(first | second)
