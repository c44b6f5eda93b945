"""Search for prompts that training must not contain, such as those of a benchmark."""

__all__ = ["Contamination"]

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from dpo.data.cleaning.words import runs_of, words
from dpo.data.reading.files import FORMATS, read_files
from dpo.errors import ConfigError, SourceError
from dpo.records import Drop, Preference
from dpo.shipped import find_file

RUN_WORDS = 13
"""Consecutive words that two texts rarely share by chance (Brown et al. 2020, arXiv:2005.14165, appendix C)."""
RUN_CHARACTERS = 30
"""The same number for scripts in which each character counts as a word. Shorter runs of 13 words do not count."""


class Contamination:
    """Finds pairs whose prompt contains one of the given texts.

    Args:
        prompts: The texts. A text of fewer than 13 words is found only if it is a whole turn of the prompt.
    """

    def __init__(self, prompts: Iterable[str]) -> None:
        self.runs = {run for prompt in prompts for run in marks(prompt)}

    @classmethod
    def read(cls, files: Iterable[str]) -> Self:
        """Read the texts from files of prompts.

        Raises:
            ConfigError: if a file is missing or in an unknown format.
            SourceError: if a file cannot be read or contains no prompt.
        """
        return cls(prompt for file in files for prompt in read_prompts(find_file(Path(file).expanduser())))

    def check(self, preference: Preference) -> Drop | None:
        """Drop a pair if a user or system turn of its prompt contains one of the texts."""
        if not self.runs:
            return None
        for message in preference.prompt:
            if message.role == "assistant":
                continue
            shared = marks(message.content) & self.runs
            if shared:
                return Drop("contaminated", f"the prompt shares '{min(shared)}' with a --decontaminate file")
        return None


def marks(text: str) -> set[str]:
    """Return the runs of words by which a text is recognized: its long runs, or the whole text if it is short."""
    found = words(text)
    by_words = runs_of(found, RUN_WORDS)
    if len(found) > RUN_WORDS:
        by_words = {run for run in by_words if len(run.replace(" ", "")) >= RUN_CHARACTERS}
    return by_words | runs_of(found, RUN_CHARACTERS)


def read_prompts(file: Path) -> Iterator[str]:
    if not file.is_file() or file.suffix not in (".txt", *FORMATS):
        raise ConfigError(
            f"--decontaminate {file}: expected a file in one of the formats .txt, {', '.join(FORMATS)}"
            + ("." if file.is_file() else ", but there is no such file.")
        )
    if file.suffix == ".txt":
        try:
            prompts = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"--decontaminate {file}: cannot be read: {error}") from error
    else:
        prompts = [text for row in read_files((file,)) for text in prompt_texts(row)]
    if not prompts:
        raise SourceError(
            f"--decontaminate {file}: the file contains no prompt.\n  Expected a column 'prompt' with text."
        )
    yield from prompts


def prompt_texts(row: Any) -> Iterator[str]:
    """Yield the prompt of a row: a text, or the user turns of a list of messages."""
    prompt = row.get("prompt") if isinstance(row, dict) else row
    if isinstance(prompt, str):
        yield prompt
    elif isinstance(prompt, list):
        yield from (
            message["content"]
            for message in prompt
            if isinstance(message, dict) and message.get("role") == "user" and isinstance(message.get("content"), str)
        )
