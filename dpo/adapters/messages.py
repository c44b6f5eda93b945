"""Conversations as messages: OpenAI's format for fine-tuning files, which many tools share.

A raw row:

    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a noble gas."},
                  {"role": "assistant", "content": "Neon.", "weight": 1}]}

Instruction rows, of a format rather than a data set: name the file, messages=rows.jsonl. An assistant turn of weight 0
is no answer to train on; `weight` may be missing. Rows that offer or call tools are dropped, since their answers are no
text alone.
"""

from collections.abc import Iterator

from dpo.adapters.base import Adapter, AdapterOptions, Row, answers_in, read_list, read_messages
from dpo.records import Drop, Message, Preference


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference | Drop]:
    turns = read_list(row, "messages")
    if row.get("tools") or row.get("functions") or any(map(calls, turns)):
        raise Drop("tools", "the row offers or calls tools")
    untrained = {place for place, turn in enumerate(turns) if turn.get("weight") == 0}
    return answers_in(read_messages(row, "messages"), options, untrained=untrained)


def calls(turn: Row) -> bool:
    return bool(turn.get("tool_calls") or turn.get("function_call"))


_USER = {"role": "user", "content": "Name a noble gas."}
_ASSISTANT = {"role": "assistant", "content": "Neon.", "weight": 1}
_QUESTION = Message(role="user", content="Name a noble gas.")

EXAMPLES = (
    (
        {"messages": [{"role": "system", "content": "Be brief."}, _USER, _ASSISTANT]},
        [Preference(prompt=(Message(role="system", content="Be brief."), _QUESTION), chosen="Neon.")],
    ),
    (
        {"messages": [_USER, _ASSISTANT, _USER, _ASSISTANT | {"weight": 0}]},
        [Preference(prompt=(_QUESTION,), chosen="Neon.")],
    ),
    ({"messages": [_USER, _ASSISTANT | {"content": None, "tool_calls": [{"type": "function"}]}]}, [Drop("tools")]),
)

ADAPTER = Adapter(
    name="messages",
    hub_id=None,
    split="train",
    columns=("messages",),
    convert=convert,
    examples=EXAMPLES,
)
