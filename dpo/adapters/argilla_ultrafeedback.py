"""argilla/ultrafeedback-binarized-preferences-cleaned: UltraFeedback, paired by mean ratings and cleaned.

A raw row:

    {"source": "sharegpt", "prompt": "Name a noble gas.",
     "chosen": [{"role": "user", "content": "Name a noble gas."}, {"role": "assistant", "content": "Neon."}],
     "chosen-rating": 4.75, "chosen-model": "gpt-4",
     "rejected": [{"role": "user", "content": "Name a noble gas."}, {"role": "assistant", "content": "Oxygen."}],
     "rejected-rating": 1.5, "rejected-model": "llama-2-7b-chat"}
"""

from collections.abc import Iterator

from dpo.adapters.base import Adapter, AdapterOptions, Row, pair_conversations, read_messages
from dpo.records import Drop, Message, Preference


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference]:
    scores = {"score_chosen": row["chosen-rating"], "score_rejected": row["rejected-rating"]}
    yield pair_conversations(scores, read_messages(row, "chosen"), read_messages(row, "rejected"))


def _conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


_ROW = {
    "source": "sharegpt",
    "prompt": "Name a noble gas.",
    "chosen": _conversation("Name a noble gas.", "Neon."),
    "chosen-rating": 4.75,
    "chosen-model": "gpt-4",
    "rejected": _conversation("Name a noble gas.", "Oxygen."),
    "rejected-rating": 1.5,
    "rejected-model": "llama-2-7b-chat",
}

EXAMPLES = (
    (
        _ROW,
        [
            Preference(
                prompt=(Message(role="user", content="Name a noble gas."),),
                chosen="Neon.",
                rejected="Oxygen.",
                score_chosen=4.75,
                score_rejected=1.5,
            )
        ],
    ),
    (_ROW | {"rejected": _conversation("Name a metal.", "Iron.")}, [Drop("prompts_differ")]),
)

ADAPTER = Adapter(
    name="argilla_ultrafeedback",
    hub_id="argilla/ultrafeedback-binarized-preferences-cleaned",
    split="train",
    columns=("chosen", "rejected", "chosen-rating", "rejected-rating"),
    convert=convert,
    examples=EXAMPLES,
)
