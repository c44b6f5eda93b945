"""Pairs that nearly repeat another: found by MinHash, then compared.

Two pairs are near duplicates where each of prompt, chosen and rejected is alike: at least four fifths of the five-word
runs that either has are in both (Jaccard similarity, Broder 1997), each symbol a word. Texts of fewer than ten words
must be equal but for case and spaces. Pairs that share a prompt and one answer, as ranked answers do, are none. Of
instruction rows, prompt and answer are compared.
"""

__all__ = ["are_texts_alike", "find_near_duplicates", "signature"]

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from dpo.data.cleaning.words import runs_of, words
from dpo.records import Preference

RUN_WORDS = 5
SHORT_WORDS = 2 * RUN_WORDS
"""Texts of fewer words are compared as a whole: one word makes too much of a difference."""
SIMILARITY = 0.8
CANDIDATE_SIMILARITY = 0.5
"""What MinHash looks for. Lower, since it misses some at its threshold, and those found are compared in full."""
NUM_HASHES = 128
"""Of each signature."""
SCHEME = "affine32"

Parts = list[set[str]]
"""The runs of prompt, chosen and, where there is one, rejected."""


def parts_of(preference: Preference) -> Parts:
    prompt = "\n".join(message.content for message in preference.prompt)
    return [shingles(text) for text in (prompt, *preference.answers)]


def shingles(text: str) -> set[str]:
    found = words(text, symbols=True)
    return runs_of(found, RUN_WORDS if len(found) >= SHORT_WORDS else SHORT_WORDS)


def signature(preference: Preference) -> bytes:
    """What MinHash keeps of a pair: 4 * NUM_HASHES bytes.

    It is of all parts' runs together, each marked with its part: pairs that are alike in every part are at
    least as alike as a whole.
    """
    from datasketch import MinHash

    hashes = MinHash(NUM_HASHES, scheme=SCHEME)
    marked = (f"{part}{run}" for part, found in enumerate(parts_of(preference)) for run in found)
    hashes.update_batch([run.encode() for run in marked])
    return bytes(hashes.hashvalues.astype("<u4").tobytes())


def find_near_duplicates(signatures: Sequence[bytes], read: Callable[[int], Preference]) -> Iterator[tuple[int, int]]:
    """Pairs that are alike, as (index, index of the earlier one that is kept), the former ascending.

    The index takes some 5 KiB a pair.

    Args:
        signatures: One for each pair, (N,).
        read: Gives the pair of an index.
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
    """Whether two texts are the same or nearly so."""
    return similarity(shingles(first), shingles(second)) >= SIMILARITY


def similarity(first: set[str], second: set[str]) -> float:
    """Jaccard: what is in both, of what is in either."""
    if not first and not second:
        return 1.0
    return len(first & second) / len(first | second)
