"""Words and runs of words, for comparing texts."""

__all__ = ["runs_of", "words"]

import re
from collections.abc import Sequence

# Chinese and Japanese are written without spaces, so each of their characters counts as a word. The vowel signs of the
# scripts from Devanagari to Khmer belong to words, but Python's \w does not match them.
ALONE = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
SIGNS = r"\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0900-\u0dff\u0e00-\u109f\u1780-\u17ff"
WORD = re.compile(rf"[{ALONE}]|(?:[^\W{ALONE}]|[{SIGNS}])+")
WORD_OR_SYMBOL = re.compile(rf"{WORD.pattern}|[^\w\s]")


def words(text: str, *, symbols: bool = False) -> list[str]:
    """Return the words of a text in lower case, without symbols, or with each symbol as a word."""
    return (WORD_OR_SYMBOL if symbols else WORD).findall(text.lower())


def runs_of(found: Sequence[str], length: int) -> set[str]:
    """Return every run of consecutive words with a length, or one run of all words if there are fewer."""
    if len(found) <= length:
        return {" ".join(found)} if found else set()
    return {" ".join(found[i : i + length]) for i in range(len(found) - length + 1)}
