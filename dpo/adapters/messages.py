"""OpenAI's file format for fine-tuning, which many tools use: conversations as lists of messages.

A raw row:

    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a noble gas."},
                  {"role": "assistant", "content": "Neon.", "weight": 1}]}

Each row gives instruction rows. This is a format and not a data set, so name the file: messages=rows.jsonl. An
assistant turn with `weight` 0 is not used as an answer; `weight` may be missing. Rows that offer or call tools are
dropped, because their answers do not consist of text only.
"""

from collections.abc import Iterator

from dpo.adapters.base import Adapter, AdapterOptions, Row, answers_in, read_list, read_messages
from dpo.records import Drop, Message, Preference


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference | Drop]:
    turns = read_list(row, "messages")
    if row.get("tools") or row.get("functions") or any(map(calls_tool, turns)):
        raise Drop("tools", "the row offers or calls tools")
    untrained = {place for place, turn in enumerate(turns) if turn.get("weight") == 0}
    return answers_in(read_messages(row, "messages"), options, untrained=untrained)


def calls_tool(turn: Row) -> bool:
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
