"""HuggingFaceH4/ultrachat_200k: conversations between two models, used for the SFT of Zephyr.

A raw row:

    {"prompt": "Hi!", "prompt_id": "9f2c...",
     "messages": [{"content": "Hi!", "role": "user"}, {"content": "Hello.", "role": "assistant"},
                  {"content": "Name a noble gas.", "role": "user"}, {"content": "Neon.", "role": "assistant"}]}

Each row gives one instruction row for the last answer, or one for each answer with --turns all. `prompt` repeats the
first turn and is not read. ultrachat:test_sft selects the held-out split.
"""

from collections.abc import Iterator

from dpo.adapters.base import Adapter, AdapterOptions, Row, answers_in, read_messages
from dpo.records import Drop, Message, Preference


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference | Drop]:
    return answers_in(read_messages(row, "messages"), options)


_HI = {"content": "Hi!", "role": "user"}
_HELLO = {"content": "Hello.", "role": "assistant"}
_ROW = {
    "prompt": "Hi!",
    "prompt_id": "9f2c",
    "messages": [
        *(_HI, _HELLO, {"content": "Name a noble gas.", "role": "user"}),
        {"content": "Neon.", "role": "assistant"},
    ],
}

EXAMPLES = (
    (
        _ROW,
        [
            Preference(
                prompt=(
                    Message(role="user", content="Hi!"),
                    Message(role="assistant", content="Hello."),
                    Message(role="user", content="Name a noble gas."),
                ),
                chosen="Neon.",
            )
        ],
    ),
    (_ROW | {"messages": [_HELLO, _HI]}, [Drop("empty_prompt")]),
    (_ROW | {"messages": [_HI]}, [Drop("no_answer")]),
)

ADAPTER = Adapter(
    name="ultrachat",
    hub_id="HuggingFaceH4/ultrachat_200k",
    split="train_sft",
    columns=("messages",),
    convert=convert,
    examples=EXAMPLES,
)
