r"""Anthropic/hh-rlhf: conversations with an assistant, of which people chose one of two ends.

A raw row:

    {"chosen": "\n\nHuman: Name a noble gas.\n\nAssistant: Neon.",
     "rejected": "\n\nHuman: Name a noble gas.\n\nAssistant: Oxygen."}

Each column holds the whole conversation. The prompt is what both have in common, turn by turn; rows whose
conversations part before the last answer are dropped, as are those that end in a human turn or have two turns of one
speaker in a row.
"""

from collections.abc import Iterator

from dpo.adapters.base import Adapter, AdapterOptions, Row, pair_conversations, read_text, split_turns
from dpo.records import Drop, Message, Preference


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference]:
    yield pair_conversations(row, read_conversation(row, "chosen"), read_conversation(row, "rejected"))


def read_conversation(row: Row, column: str) -> tuple[Message, ...]:
    """A column's conversation, whose speakers take turns and whose last is the assistant."""
    messages = split_turns(read_text(row, column))
    roles = [message.role for message in messages]
    if roles != [("user", "assistant")[turn % 2] for turn in range(len(roles))] or len(roles) % 2:
        raise Drop("malformed_prompt", f"'{column}': Human and Assistant do not take turns, or Human has the last word")
    return messages


def _conversation(answer: str) -> str:
    return f"\n\nHuman: Hi!\n\nAssistant: Hello.\n\nHuman: Name a noble gas.\n\nAssistant: {answer}"


EXAMPLES = (
    (
        {"chosen": _conversation("Neon."), "rejected": _conversation("Oxygen.")},
        [
            Preference(
                prompt=(
                    Message(role="user", content="Hi!"),
                    Message(role="assistant", content="Hello."),
                    Message(role="user", content="Name a noble gas."),
                ),
                chosen="Neon.",
                rejected="Oxygen.",
            )
        ],
    ),
    (
        {"chosen": _conversation("Neon."), "rejected": "\n\nHuman: Hi!\n\nAssistant: Oxygen."},
        [Drop("prompts_differ")],
    ),
    (
        {"chosen": "\n\nHuman: Hi!\n\nHuman: Hello?", "rejected": _conversation("Oxygen.")},
        [Drop("malformed_prompt")],
    ),
)

ADAPTER = Adapter(
    name="hh_rlhf",
    hub_id="Anthropic/hh-rlhf",
    split="train",
    columns=("chosen", "rejected"),
    convert=convert,
    examples=EXAMPLES,
)
