r"""HuggingFaceH4/ultrafeedback_binarized: UltraFeedback prompts with the best answer and another one, scored by GPT-4.

A raw row:

    {"prompt": "Name a noble gas.", "prompt_id": "9f2c...",
     "chosen": [{"content": "Name a noble gas.", "role": "user"}, {"content": "Neon.", "role": "assistant"}],
     "rejected": [{"content": "Name a noble gas.", "role": "user"}, {"content": "Oxygen.", "role": "assistant"}],
     "messages": [...], "score_chosen": 8.5, "score_rejected": 3.0}

The prompt is read from `chosen`, because `prompt` contains only the first turn of a conversation.
"""

from collections.abc import Iterator

from dpo.adapters.base import Adapter, AdapterOptions, Row, pair_conversations, read_messages
from dpo.records import Drop, Message, Preference


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference]:
    yield pair_conversations(row, read_messages(row, "chosen"), read_messages(row, "rejected"))


def _conversation(*contents: str) -> list[dict[str, str]]:
    return [{"content": content, "role": ("user", "assistant")[i % 2]} for i, content in enumerate(contents)]


EXAMPLES = (
    (
        {
            "prompt": "Hi!",
            "prompt_id": "ca",
            "chosen": _conversation("Hi!", "Hello.", "2 + 2?", "4"),
            "rejected": _conversation("Hi!", "Hello.", "2 + 2?", "5"),
            "messages": _conversation("Hi!", "Hello.", "2 + 2?", "4"),
            "score_chosen": 9.0,
            "score_rejected": 2.5,
        },
        [
            Preference(
                prompt=(
                    Message(role="user", content="Hi!"),
                    Message(role="assistant", content="Hello."),
                    Message(role="user", content="2 + 2?"),
                ),
                chosen="4",
                rejected="5",
                score_chosen=9.0,
                score_rejected=2.5,
            )
        ],
    ),
    (
        {"chosen": _conversation("Hi!", "Hello."), "rejected": _conversation("Bye!", "Hello.")},
        [Drop("prompts_differ")],
    ),
)

ADAPTER = Adapter(
    name="ultrafeedback",
    hub_id="HuggingFaceH4/ultrafeedback_binarized",
    split="train_prefs",
    columns=("chosen", "rejected", "score_chosen", "score_rejected"),
    convert=convert,
    examples=EXAMPLES,
)
