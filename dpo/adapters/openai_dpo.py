"""OpenAI's file format for DPO fine-tuning: a conversation, a preferred answer and a non-preferred one.

A raw row:

    {"input": {"messages": [{"role": "user", "content": "Name a noble gas."}], "tools": [],
               "parallel_tool_calls": true},
     "preferred_output": [{"role": "assistant", "content": "Neon."}],
     "non_preferred_output": [{"role": "assistant", "content": "Oxygen."}]}

This is a format and not a data set, so name the file: openai_dpo=rows.jsonl. Rows that offer or call tools are dropped,
because their answers do not consist of text only.
"""

from collections.abc import Iterator

from dpo.adapters.base import Adapter, AdapterOptions, Row, pair_conversations, read_messages
from dpo.records import Drop, Message, Preference


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference]:
    messages = [*row["input"]["messages"], *row["preferred_output"], *row["non_preferred_output"]]
    if row["input"].get("tools") or any(message.get("tool_calls") for message in messages):
        raise Drop("tools", "the row offers or calls tools")
    yield pair_conversations(
        row,
        read_messages(row, "preferred_output"),
        read_messages(row, "non_preferred_output"),
        prompt=read_messages(row["input"], "messages"),
    )


_ROW = {
    "input": {"messages": [{"role": "user", "content": "Name a noble gas."}], "tools": [], "parallel_tool_calls": True},
    "preferred_output": [{"role": "assistant", "content": "Neon."}],
    "non_preferred_output": [{"role": "assistant", "content": "Oxygen."}],
}

EXAMPLES = (
    (
        _ROW,
        [Preference(prompt=(Message(role="user", content="Name a noble gas."),), chosen="Neon.", rejected="Oxygen.")],
    ),
    (_ROW | {"input": {"messages": [], "tools": [{"type": "function"}]}}, [Drop("tools")]),
    (_ROW | {"preferred_output": []}, [Drop("malformed_row")]),
)

ADAPTER = Adapter(
    name="openai_dpo",
    hub_id=None,
    split="train",
    columns=("input", "preferred_output", "non_preferred_output"),
    convert=convert,
    examples=EXAMPLES,
)
