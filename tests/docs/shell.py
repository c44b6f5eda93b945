"""Shell text as commands: enough of the grammar for the blocks of the documentation."""

import re
import shlex
from collections.abc import Iterator

OPERATORS = ("&&", "||", ";", "|", "&")


def split_commands(text: str) -> Iterator[str]:
    """The commands of a script, each with its continued lines, quoted line breaks and here-document."""
    lines = iter(text.splitlines())
    for command in lines:
        while command.endswith("\\") or has_open_quote(command):
            command += "\n" + next(lines)
        if here := re.search(r"<<-?\s*['\"]?(\w+)['\"]?", command):
            for line in lines:
                command += "\n" + line
                if line == here.group(1):
                    break
        yield command


def has_open_quote(command: str) -> bool:
    try:
        read_words(command)
    except ValueError:
        return True
    return False


def read_words(command: str) -> list[str]:
    """The words and operators of a command, without comments.

    Raises:
        ValueError: a quote is not closed.
    """
    lexer = shlex.shlex(command.replace("\\\n", " "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def simple_commands(command: str) -> list[list[str]]:
    """The words of each command between operators, without leading variables, redirections and here-documents."""
    found: list[list[str]] = [[]]
    words = iter(read_words(re.sub(r"<<.*", "", command, flags=re.DOTALL)))
    for word in words:
        if word in OPERATORS:
            found.append([])
        elif set(word) <= set("<>&"):
            next(words, None)  # the file of a redirection
        elif found[-1] or not re.match(r"\w+=", word):
            found[-1].append(word)
    return [words for words in found if words]
