"""Prompts that training must not see, such as a benchmark's."""

__all__ = ["Contamination"]

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from dpo.data.cleaning.words import runs_of, words
from dpo.data.reading.files import FORMATS, read_files
from dpo.errors import ConfigError, SourceError
from dpo.records import Drop, Preference

RUN_WORDS = 13
"""Words in a row that two texts share by copying and hardly by chance (Brown et al. 2020, arXiv:2005.14165, C)."""
RUN_CHARACTERS = 30
"""The same where each character is taken for a word. Runs of 13 words with fewer characters do not count."""


class Contamination:
    """Finds pairs whose prompt holds one of some texts.

    Args:
        prompts: The texts. One of fewer than 13 words is found only where it is a whole turn.
    """

    def __init__(self, prompts: Iterable[str]) -> None:
        self.runs = {run for prompt in prompts for run in marks(prompt)}

    @classmethod
    def read(cls, files: Iterable[str]) -> Self:
        """Read files of prompts.

        Raises:
            ConfigError: a file is missing or of no known kind.
            SourceError: a file cannot be read, or holds no prompt.
        """
        return cls(prompt for file in files for prompt in read_prompts(Path(file).expanduser()))

    def check(self, preference: Preference) -> Drop | None:
        """Say whether a turn of the prompt, the assistant's apart, holds one of the texts."""
        if not self.runs:
            return None
        for message in preference.prompt:
            if message.role == "assistant":
                continue
            shared = marks(message.content) & self.runs
            if shared:
                return Drop("contaminated", f"the prompt holds '{min(shared)}'")
        return None


def marks(text: str) -> set[str]:
    """What a text is known again by: its long runs of words, or all of it where it is short."""
    found = words(text)
    by_words = runs_of(found, RUN_WORDS)
    if len(found) > RUN_WORDS:
        by_words = {run for run in by_words if len(run.replace(" ", "")) >= RUN_CHARACTERS}
    return by_words | runs_of(found, RUN_CHARACTERS)


def read_prompts(file: Path) -> Iterator[str]:
    if not file.is_file() or file.suffix not in (".txt", *FORMATS):
        raise ConfigError(
            f"--decontaminate {file}: expected a file of .txt, {', '.join(FORMATS)}"
            + ("." if file.is_file() else ", and there is none.")
        )
    if file.suffix == ".txt":
        try:
            prompts = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"--decontaminate {file}: cannot be read: {error}") from error
    else:
        prompts = [text for row in read_files((file,)) for text in prompt_texts(row)]
    if not prompts:
        raise SourceError(f"--decontaminate {file}: no prompt is in it.\n  Expected a column 'prompt' with text.")
    yield from prompts


def prompt_texts(row: Any) -> Iterator[str]:
    """The prompt of a row: text, or the user's turns of a list of messages."""
    prompt = row.get("prompt") if isinstance(row, dict) else row
    if isinstance(prompt, str):
        yield prompt
    elif isinstance(prompt, list):
        yield from (
            message["content"]
            for message in prompt
            if isinstance(message, dict) and message.get("role") == "user" and isinstance(message.get("content"), str)
        )
