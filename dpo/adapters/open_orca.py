"""Open-Orca/OpenOrca: questions from the FLAN collection with a system message, answered by GPT-4 or GPT-3.5.

A raw row:

    {"id": "cot.7", "system_prompt": "You are an AI assistant.", "question": "Name a noble gas.",
     "response": "Neon."}

Each row is an instruction row. If `system_prompt` is "", the prompt has no system message.
"""

from collections.abc import Iterator

from dpo.adapters.base import Adapter, AdapterOptions, Row, open_prompt, read_text
from dpo.records import Message, Preference


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference]:
    yield Preference(
        prompt=open_prompt(row, system="system_prompt", question="question"), chosen=read_text(row, "response")
    )


_ROW = {"id": "cot.7", "system_prompt": "Be brief.", "question": "Name a noble gas.", "response": "Neon."}
_QUESTION = Message(role="user", content="Name a noble gas.")

EXAMPLES = (
    (_ROW, [Preference(prompt=(Message(role="system", content="Be brief."), _QUESTION), chosen="Neon.")]),
    (_ROW | {"system_prompt": ""}, [Preference(prompt=(_QUESTION,), chosen="Neon.")]),
)

ADAPTER = Adapter(
    name="open_orca",
    hub_id="Open-Orca/OpenOrca",
    split="train",
    columns=("system_prompt", "question", "response"),
    convert=convert,
    examples=EXAMPLES,
)
