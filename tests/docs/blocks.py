"""The fenced blocks of the documentation, and which of their commands are executed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.builders import ROOT
from tests.docs.shell import simple_commands, split_commands

LANGUAGES = ("sh", "python")
"""What is executed. Synopses are ```text, output is ```console."""

OTHER_NAMES = ("bash", "shell", "zsh", "py", "python3", "pycon")
"""Names of the same languages that pages must not use, since such a block would be overlooked."""

MARKERS = ("# needs a GPU", "# needs the Hub")
"""A block that begins with one of these lines is checked, and not executed."""

NOT_EXECUTED = {
    ("make",): "make targets install packages, or run this test suite",
    ("pip", "install"): "it needs a package index, and the environment of the tests has the packages",
    ("python3", "-m", "venv"): "the environment of the tests is used",
    ("source", ".venv/bin/activate"): "the environment of the tests is used",
    ("git", "clone"): "it needs a network, and the scratch folder is the checkout",
    ("cd", "dpo"): "the scratch folder is the checkout",
}
"""Commands that are allowed in a block and left out when it is executed, with the reason."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block of a page."""

    line: int
    """The line of its opening fence, from 1."""
    language: str
    text: str

    @property
    def is_marked(self) -> bool:
        """Whether its first line is one of MARKERS."""
        return self.text.split("\n", 1)[0].strip() in MARKERS

    @property
    def is_executed(self) -> bool:
        """Whether at least one command of it is executed."""
        return not self.is_marked and bool(executed_text(self).strip())


def find_pages() -> list[Path]:
    """README.md, CONTRIBUTING.md and every page in docs/, relative to the repository."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page.relative_to(ROOT) for page in pages]


def pages_with_blocks(*, guides: bool) -> list[Path]:
    """The pages that have a block to execute or to check: the how-to guides, or all others."""
    pages = [page for page in find_pages() if page.is_relative_to("docs/how-to") is guides]
    return [page for page in pages if read_blocks(page_text(page))]


def page_text(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def read_blocks(text: str) -> list[Block]:
    """The blocks of a page in one of LANGUAGES, in order."""
    return [block for block in read_fences(text) if block.language in LANGUAGES]


def read_fences(text: str) -> Iterator[Block]:
    """Every fenced block of a page, without the indentation of its fence."""
    lines = iter(enumerate(text.split("\n"), 1))
    for number, line in lines:
        if not (opening := re.match(r"(\s*)(`{3,}|~{3,})\s*(\w*)", line)):
            continue
        indentation, fence, language = opening.groups()
        content = []
        for _, inner in lines:
            if re.fullmatch(rf"\s*{fence}{fence[0]}*\s*", inner):
                break
            content.append(inner.removeprefix(indentation))
        yield Block(line=number, language=language, text="\n".join(content) + "\n")


def executed_text(block: Block) -> str:
    """A block without the commands of NOT_EXECUTED.

    Raises:
        ValueError: such a command and one that is executed are in one line.
    """
    if block.language != "sh":
        return block.text
    kept = []
    for command in split_commands(block.text):
        left_out = [is_left_out(words) for words in simple_commands(command)]
        if any(left_out) and not all(left_out):
            raise ValueError(f"{command!r}: a command that tests leave out needs a line of its own")
        if left_out and not any(left_out):
            kept.append(command)
    return "".join(f"{command}\n" for command in kept)


def is_left_out(words: list[str]) -> bool:
    return any(tuple(words[: len(start)]) == start for start in NOT_EXECUTED)
