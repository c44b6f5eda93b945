"""What an adapter is, and the helpers adapters share.

An adapter turns one raw row into preferences, and does nothing else: it knows no template, no tokenizer
and no other row. Checks that hold for every data set (ties, empty or identical answers, length) come later.
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
    """What a user may ask of adapters."""

    pairing: Pairing = "best_worst"
    """How ranked answers become pairs."""
    turns: Turns = "last"
    """Which assistant turns of an instruction row's conversation are answers."""
    seed: int = 42
    """Makes random choices repeatable."""
    min_score_ratio: float = 2.0
    """Smallest ratio of the better to the worse score, where a data set gives one."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """For the adapter `columns`: which column holds prompt, chosen, rejected, system, score_chosen, score_rejected."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A data set's schema and how a raw row of it becomes preferences."""

    name: str
    """What the user types after --datasets."""
    hub_id: str | None
    """The data set on the Hugging Face Hub that is loaded where no source is named; None for a format."""
    split: str
    """The split that holds the preferences, or the instructions."""
    columns: tuple[str, ...]
    """Columns that every row needs. A source that has none of one of them is an error."""
    rejected_is_optional: bool = False
    """Whether rows may lack the column `rejected`, and are instruction rows then. Only a source of pairs needs it."""
    columns_are_named: bool = False
    """Whether the user says which column stands for each of these, with --column_NAME."""
    convert: Callable[[Row, AdapterOptions], Iterable[Preference | Drop]]
    """Raw row -> preferences. Pure; may yield or raise a Drop."""
    examples: tuple[Example, ...]
    """Pairs of a raw row and what it must give. The test suite runs them."""

    def columns_in(self, names: Mapping[str, str], *, pairs: bool) -> tuple[str, ...]:
        """The columns that a source needs, under the names it has for them; with all that the user named.

        Args:
            names: Which column stands for each, where the user says so.
            pairs: Whether each row is to have a rejected answer.
        """
        needed = [name for name in self.columns if pairs or name != "rejected" or not self.rejected_is_optional]
        if not self.columns_are_named:
            return tuple(needed)
        return tuple(dict.fromkeys([*(names.get(column, column) for column in needed), *names.values()]))


def read_text(row: Row, column: str) -> str:
    """The text in a column.

    Raises:
        Drop: malformed_row, where the column is missing or holds no text.
    """
    if column not in row:
        raise Drop("malformed_row", f"column '{column}' is missing")
    value = row[column]
    if not isinstance(value, str):
        raise Drop("malformed_row", f"column '{column}' holds {type(value).__name__}, expected text")
    return value


def read_number(row: Row, column: str) -> float:
    """The number in a column. A CSV cell holds it as text.

    Raises:
        Drop: malformed_row, where the column is missing or holds no finite number.
    """
    value = row.get(column)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise Drop("malformed_row", f"column '{column}' holds {value!r:.40}, expected a number")


def read_list(row: Row, column: str) -> list[Mapping[str, Any]]:
    """The list of objects in a column. A CSV cell holds it as JSON.

    Raises:
        Drop: malformed_row, where the column is missing or holds no list of objects.
    """
    value = row.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = row[column]
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise Drop("malformed_row", f"column '{column}' holds {type(value).__name__}, expected a list of objects")
    return value


def read_messages(row: Row, column: str) -> tuple[Message, ...]:
    """The conversation in a column: a list of {"role": ..., "content": ...}.

    Raises:
        Drop: malformed_row, where the column is missing or holds no list of messages.
    """
    return tuple(Message.model_validate(dict(message)) for message in read_list(row, column))


def open_prompt(row: Row, *, system: str, question: str) -> tuple[Message, ...]:
    """A prompt of one question, behind a system message where its column is neither empty nor null.

    Args:
        row: A raw row.
        system: Column of the system message.
        question: Column of the question.
    """
    asked = Message(role="user", content=read_text(row, question))
    text = "" if row[system] is None else read_text(row, system)
    return (Message(role="system", content=text), asked) if text else (asked,)


def split_turns(text: str) -> tuple[Message, ...]:
    r"""Messages of a "\n\nHuman: ...\n\nAssistant: ..." string, white space around each turn removed.

    Raises:
        Drop: malformed_prompt, where it does not start with a turn.
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
    """Instruction rows from a conversation: an assistant turn as the answer to the turns before it.

    What stands behind the last answer is left out, and so is an empty system message.

    Args:
        messages: The conversation, oldest turn first.
        options: `turns` says which: the last assistant turn (1 row), or all (a row each).
        untrained: Places of assistant turns that are no answers, and only stand in prompts.

    Raises:
        Drop: no_answer, where no turn is one.
    """
    places = [i for i, message in enumerate(messages) if message.role == "assistant" and i not in untrained]
    if not places:
        raise Drop("no_answer", "the conversation has no assistant turn to train on")
    start = 1 if messages[0].role == "system" and not messages[0].content else 0
    for place in places if options.turns == "all" else places[-1:]:
        prompt = tuple(messages[start:place])
        if not prompt:
            yield Drop("empty_prompt", "the conversation begins with an answer")
        elif prompt[-1].role != "user":
            yield Drop("prompt_not_user", f"an answer follows a turn of '{prompt[-1].role}'")
        else:
            yield Preference(prompt=prompt, chosen=messages[place].content)


def pair_conversations(
    row: Row, chosen: tuple[Message, ...], rejected: tuple[Message, ...] | None, *, prompt: tuple[Message, ...] = ()
) -> Preference:
    """A pair from two conversations that end in the answers, with the row's scores where it has them.

    Args:
        row: Read for score_chosen and score_rejected.
        chosen: Ends in the better answer; may hold the prompt before it.
        rejected: Likewise; None in an instruction row.
        prompt: What comes before both, unless they hold it themselves.

    Raises:
        Drop: malformed_row, where a conversation does not end in an assistant turn;
            prompts_differ, where the two answer different conversations.
    """
    answered = {"chosen": chosen} if rejected is None else {"chosen": chosen, "rejected": rejected}
    for name, messages in answered.items():
        if not messages or messages[-1].role != "assistant":
            raise Drop("malformed_row", f"'{name}' does not end in an assistant turn")
    if rejected is not None and chosen[:-1] != rejected[:-1]:
        raise Drop("prompts_differ", "chosen and rejected answer different conversations")
    holds_prompt = chosen[: len(prompt)] == prompt
    return Preference(
        prompt=chosen[:-1] if holds_prompt else prompt + chosen[:-1],
        chosen=chosen[-1].content,
        rejected=None if rejected is None else rejected[-1].content,
        score_chosen=row.get("score_chosen"),
        score_rejected=row.get("score_rejected"),
    )


def pair_ranked(
    prompt: Sequence[Message], answers: Sequence[tuple[str, float]], options: AdapterOptions
) -> list[Preference]:
    """Pairs from answers with scores, higher the better.

    Equal scores are paired as they come and left for the tie filter, so that they are counted.

    Args:
        prompt: The conversation that every answer answers.
        answers: (text, score), at least two.
        options: `pairing` picks from the answers sorted from best to worst:
            best_worst, the first with the last (1 pair);
            best_random, the first with a seeded random one of those scored below it (1 pair);
            adjacent, each with the next (n - 1 pairs);
            all, each with each below it (n (n - 1) / 2 pairs).

    Raises:
        Drop: too_few_answers.
    """
    if len(answers) < 2:
        raise Drop("too_few_answers", f"found {len(answers)}, a pair needs 2")
    ranked = sorted(answers, key=lambda answer: -answer[1])
    best = ranked[0]
    if options.pairing == "best_worst":
        pairs = [(best, ranked[-1])]
    elif options.pairing == "best_random":
        lower = [answer for answer in ranked if answer[1] < best[1]] or ranked[1:]
        # Seeded by the row's own text: the choice does not depend on the rows before it.
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
