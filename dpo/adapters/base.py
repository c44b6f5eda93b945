"""The adapter contract, and helpers that several adapters use.

An adapter turns one raw row into preferences. It uses neither templates nor tokenizers nor other rows. Checks that
apply to every data set (ties, empty or identical answers, length) come later in the pipeline.
"""

__all__ = [
    "Adapter",
    "AdapterOptions",
    "Example",
    "Pairing",
    "Row",
    "Turns",
    "answers_in",
    "open_prompt",
    "pair_conversations",
    "pair_ranked",
    "read_list",
    "read_messages",
    "read_number",
    "read_text",
    "split_turns",
]

import json
import math
import random
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any, Literal

from dpo.records import Drop, Message, Preference

Row = Mapping[str, Any]
Pairing = Literal["best_worst", "best_random", "adjacent", "all"]
Turns = Literal["last", "all"]
Example = tuple[Row, Sequence[Preference | Drop]]
TURN = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """The user's options for adapters."""

    pairing: Pairing = "best_worst"
    """How ranked answers become pairs."""
    turns: Turns = "last"
    """Which assistant turns of a conversation become answers of instruction rows."""
    seed: int = 42
    """Seed of random choices."""
    min_score_ratio: float = 2.0
    """Smallest ratio of the better to the worse score, for data sets that contain this ratio."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """For the adapter `columns`: the user's names of prompt, chosen, rejected, system, score_chosen, score_rejected."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """The columns of a data set, and the function that turns its raw rows into preferences."""

    name: str
    """Name of the adapter in --datasets."""
    hub_id: str | None
    """Data set on the Hugging Face Hub to load if the user names no source. None for a file format."""
    split: str
    """Split of the Hub data set that contains the preferences or the instructions."""
    columns: tuple[str, ...]
    """Columns that every row needs. A source without one of them is an error."""
    rejected_is_optional: bool = False
    """Whether rows may lack the column `rejected` and are then instruction rows. Stage dpo still needs the column."""
    columns_are_named: bool = False
    """Whether the user can rename these columns with --column_NAME."""
    convert: Callable[[Row, AdapterOptions], Iterable[Preference | Drop]]
    """Pure function from a raw row to its preferences. It may yield or raise a Drop."""
    examples: tuple[Example, ...]
    """Raw rows, each with the preferences and drops that convert must return for it. The test suite runs them."""

    def columns_in(self, names: Mapping[str, str], *, pairs: bool) -> tuple[str, ...]:
        """Return the columns that a source needs, under the user's names, and all other columns that the user named.

        Args:
            names: The user's column name for each column, where it differs.
            pairs: Whether each row needs a rejected answer.
        """
        needed = [name for name in self.columns if pairs or name != "rejected" or not self.rejected_is_optional]
        if not self.columns_are_named:
            return tuple(needed)
        return tuple(dict.fromkeys([*(names.get(column, column) for column in needed), *names.values()]))


def read_text(row: Row, column: str) -> str:
    """Return the text in a column.

    Raises:
        Drop: malformed_row, if the column is missing or does not contain text.
    """
    if column not in row:
        raise Drop("malformed_row", f"column '{column}' is missing")
    value = row[column]
    if not isinstance(value, str):
        raise Drop("malformed_row", f"column '{column}' contains {type(value).__name__}, expected text")
    return value


def read_number(row: Row, column: str) -> float:
    """Return the number in a column. It may be a text, as in CSV files.

    Raises:
        Drop: malformed_row, if the column is missing or does not contain a finite number.
    """
    value = row.get(column)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise Drop("malformed_row", f"column '{column}' contains {value!r:.40}, expected a number")


def read_list(row: Row, column: str) -> list[Mapping[str, Any]]:
    """Return the list of objects in a column. It may be JSON text, as in CSV files.

    Raises:
        Drop: malformed_row, if the column is missing or does not contain a list of objects.
    """
    value = row.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = row[column]
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise Drop("malformed_row", f"column '{column}' contains {type(value).__name__}, expected a list of objects")
    return value


def read_messages(row: Row, column: str) -> tuple[Message, ...]:
    """Return the conversation in a column: a list of {"role": ..., "content": ...}.

    Raises:
        Drop: malformed_row, if the column is missing or does not contain a list of messages.
    """
    return tuple(Message.model_validate(dict(message)) for message in read_list(row, column))


def open_prompt(row: Row, *, system: str, question: str) -> tuple[Message, ...]:
    """Return a prompt of one user turn, with a system message before it unless that column is empty or null.

    Args:
        row: A raw row.
        system: Column of the system message.
        question: Column of the user turn.
    """
    user_turn = Message(role="user", content=read_text(row, question))
    text = "" if row[system] is None else read_text(row, system)
    return (Message(role="system", content=text), user_turn) if text else (user_turn,)


def split_turns(text: str) -> tuple[Message, ...]:
    r"""Split a "\n\nHuman: ...\n\nAssistant: ..." string into messages, without the white space around each turn.

    Raises:
        Drop: malformed_prompt, if the string does not start with a turn.
    """
    before, *parts = TURN.split(text)
    if before.strip() or not parts:
        raise Drop("malformed_prompt", f"expected '\\n\\nHuman:' at the start, found {text[:40]!r}")
    return tuple(
        Message(role="user" if speaker == "Human" else "assistant", content=content.strip())
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    )


def answers_in(
    messages: Sequence[Message], options: AdapterOptions, *, untrained: Collection[int] = ()
) -> Iterator[Preference | Drop]:
    """Yield instruction rows from a conversation: an assistant turn as the answer, the turns before it as the prompt.

    Turns after the last answer are left out, and so is an empty system message.

    Args:
        messages: The conversation, oldest turn first.
        options: `turns` selects the last assistant turn (1 row) or all of them (1 row each).
        untrained: Indices of assistant turns that are used in prompts but not as answers.

    Raises:
        Drop: no_answer, if no turn can be an answer.
    """
    places = [i for i, message in enumerate(messages) if message.role == "assistant" and i not in untrained]
    if not places:
        raise Drop("no_answer", "the conversation has no assistant turn to train on")
    start = 1 if messages[0].role == "system" and not messages[0].content else 0
    for place in places if options.turns == "all" else places[-1:]:
        prompt = tuple(messages[start:place])
        if not prompt:
            yield Drop("empty_prompt", "the conversation begins with an assistant turn")
        elif prompt[-1].role != "user":
            yield Drop("prompt_not_user", f"an answer follows a turn of '{prompt[-1].role}', expected a user turn")
        else:
            yield Preference(prompt=prompt, chosen=messages[place].content)


def pair_conversations(
    row: Row, chosen: tuple[Message, ...], rejected: tuple[Message, ...] | None, *, prompt: tuple[Message, ...] = ()
) -> Preference:
    """Build a pair from two conversations that end in the answers, with the scores of the row if it has any.

    Args:
        row: Raw row with score_chosen and score_rejected, which may be missing.
        chosen: Conversation that ends in the better answer. It may contain the prompt.
        rejected: Conversation that ends in the worse answer. It may contain the prompt. None in an instruction row.
        prompt: Messages to put before both, unless the conversations already contain them.

    Raises:
        Drop: malformed_row, if a conversation does not end in an assistant turn;
            prompts_differ, if the turns before the two answers differ.
    """
    answered = {"chosen": chosen} if rejected is None else {"chosen": chosen, "rejected": rejected}
    for name, messages in answered.items():
        if not messages or messages[-1].role != "assistant":
            raise Drop("malformed_row", f"'{name}' does not end in an assistant turn")
    if rejected is not None and chosen[:-1] != rejected[:-1]:
        raise Drop("prompts_differ", "the turns before the chosen and the rejected answer differ")
    contains_prompt = chosen[: len(prompt)] == prompt
    return Preference(
        prompt=chosen[:-1] if contains_prompt else prompt + chosen[:-1],
        chosen=chosen[-1].content,
        rejected=None if rejected is None else rejected[-1].content,
        score_chosen=row.get("score_chosen"),
        score_rejected=row.get("score_rejected"),
    )


def pair_ranked(
    prompt: Sequence[Message], answers: Sequence[tuple[str, float]], options: AdapterOptions
) -> list[Preference]:
    """Build pairs from answers with scores. A higher score is better.

    Answers with equal scores are paired too. The tie filter drops and counts these pairs later.

    Args:
        prompt: The conversation before the answers.
        answers: (text, score) of at least two answers.
        options: `pairing` selects pairs from the n answers, sorted from best to worst:
            best_worst: the first with the last (1 pair);
            best_random: the first with a random one that has a lower score, drawn by the seed (1 pair);
            adjacent: each with the next one (n - 1 pairs);
            all: each with every one below it (n (n - 1) / 2 pairs).

    Raises:
        Drop: too_few_answers, if there are fewer than two.
    """
    if len(answers) < 2:
        raise Drop("too_few_answers", f"answers found: {len(answers)}, a pair needs 2")
    ranked = sorted(answers, key=lambda answer: -answer[1])
    best = ranked[0]
    if options.pairing == "best_worst":
        pairs = [(best, ranked[-1])]
    elif options.pairing == "best_random":
        lower = [answer for answer in ranked if answer[1] < best[1]] or ranked[1:]
        # The seed includes the row's own text, so that the choice does not depend on the rows before it.
        pairs = [(best, random.Random(f"{options.seed}:{prompt[-1].content}").choice(lower))]
    elif options.pairing == "adjacent":
        pairs = list(pairwise(ranked))
    else:
        pairs = list(combinations(ranked, 2))
    return [
        Preference(
            prompt=tuple(prompt),
            chosen=chosen,
            rejected=rejected,
            score_chosen=chosen_score,
            score_rejected=rejected_score,
        )
        for (chosen, chosen_score), (rejected, rejected_score) in pairs
    ]
