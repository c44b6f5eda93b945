r"""Rows with prompt, chosen and rejected, in the forms that TRL documents.

Raw rows, as text, as messages, and as messages that contain their prompt:

    {"prompt": "Name a noble gas.", "chosen": "Neon.", "rejected": "Oxygen."}

    {"prompt": [{"role": "user", "content": "Name a noble gas."}],
     "chosen": [{"role": "assistant", "content": "Neon."}],
     "rejected": [{"role": "assistant", "content": "Oxygen."}]}

    {"chosen": [{"role": "user", "content": "Name a noble gas."}, {"role": "assistant", "content": "Neon."}],
     "rejected": [{"role": "user", "content": "Name a noble gas."}, {"role": "assistant", "content": "Oxygen."}]}

A prompt that is text becomes one user turn. `score_chosen` and `score_rejected` are read if they are present. A row in
which `rejected` is missing or null is an instruction row, with `chosen` as its answer.
"""

from collections.abc import Iterator

from dpo.adapters.base import Adapter, AdapterOptions, Row, pair_conversations, read_messages
from dpo.records import Drop, Message, Preference


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference]:
    yield pair_conversations(row, read_answer(row, "chosen"), read_rejected(row), prompt=read_prompt(row))


def read_prompt(row: Row) -> tuple[Message, ...]:
    """Return the messages of the prompt, or () if the prompt is part of the answers."""
    if row.get("prompt") is None:
        return ()
    if isinstance(row["prompt"], str):
        return (Message(role="user", content=row["prompt"]),)
    return read_messages(row, "prompt")


def read_answer(row: Row, column: str) -> tuple[Message, ...]:
    """Return an answer as messages that end in an assistant turn."""
    if row.get(column) is None:
        raise Drop("malformed_row", f"column '{column}' is missing; expected text or a list of messages")
    if isinstance(row[column], str):
        return (Message(role="assistant", content=row[column]),)
    return read_messages(row, column)


def read_rejected(row: Row) -> tuple[Message, ...] | None:
    """Return the rejected answer as messages, or None if the row has none."""
    return None if row.get("rejected") is None else read_answer(row, "rejected")


_USER = {"role": "user", "content": "Name a noble gas."}
_NEON = {"role": "assistant", "content": "Neon."}
_OXYGEN = {"role": "assistant", "content": "Oxygen."}
_PREFERENCE = Preference(prompt=(Message.model_validate(_USER),), chosen="Neon.", rejected="Oxygen.")

EXAMPLES = (
    ({"prompt": "Name a noble gas.", "chosen": "Neon.", "rejected": "Oxygen."}, [_PREFERENCE]),
    ({"prompt": [_USER], "chosen": [_NEON], "rejected": [_OXYGEN]}, [_PREFERENCE]),
    ({"chosen": [_USER, _NEON], "rejected": [_USER, _OXYGEN]}, [_PREFERENCE]),
    ({"prompt": "Name a noble gas.", "chosen": [_USER, _NEON], "rejected": [_USER, _OXYGEN]}, [_PREFERENCE]),
    (
        {"prompt": "Name a noble gas.", "chosen": "Neon."},
        [Preference(prompt=(Message.model_validate(_USER),), chosen="Neon.")],
    ),
    ({"prompt": "Name a noble gas.", "chosen": ["Neon."], "rejected": "Oxygen."}, [Drop("malformed_row")]),
)

ADAPTER = Adapter(
    name="triplets",
    hub_id="trl-lib/ultrafeedback_binarized",
    split="train",
    columns=("chosen", "rejected"),
    rejected_is_optional=True,
    convert=convert,
    examples=EXAMPLES,
)
