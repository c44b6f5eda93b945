r"""Anthropic/hh-rlhf: conversations with an assistant, and people's choice between two last answers.

A raw row:

    {"chosen": "\n\nHuman: Name a noble gas.\n\nAssistant: Neon.",
     "rejected": "\n\nHuman: Name a noble gas.\n\nAssistant: Oxygen."}

Each column contains the whole conversation. The prompt is the turns that both conversations share. A row is dropped if
its conversations differ before the last answer, if one of them ends in a human turn, or if one of them has two turns of
the same speaker in a row.
"""

from collections.abc import Iterator

from dpo.adapters.base import Adapter, AdapterOptions, Row, pair_conversations, read_text, split_turns
from dpo.records import Drop, Message, Preference


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference]:
    yield pair_conversations(row, read_conversation(row, "chosen"), read_conversation(row, "rejected"))


def read_conversation(row: Row, column: str) -> tuple[Message, ...]:
    """Read the conversation in a column. The speakers must alternate, and the last one must be the assistant."""
    messages = split_turns(read_text(row, column))
    roles = [message.role for message in messages]
    if roles != [("user", "assistant")[turn % 2] for turn in range(len(roles))] or len(roles) % 2:
        raise Drop(
            "malformed_prompt",
            f"column '{column}': expected alternating Human and Assistant turns that start with Human and end with "
            "Assistant",
        )
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
