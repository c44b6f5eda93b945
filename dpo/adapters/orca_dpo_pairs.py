r"""Intel/orca_dpo_pairs: OpenOrca questions, answered by GPT-4 (chosen) and Llama-2-13B-chat (rejected).

A raw row:

    {"system": "You are an AI assistant that helps people find information.",
     "question": "Which gas do plants take in?",
     "chosen": "Carbon dioxide.",
     "rejected": "Oxygen."}

If `system` is "" or null, the prompt has no system message.
"""

from collections.abc import Iterator

from dpo.adapters.base import Adapter, AdapterOptions, Row, open_prompt, read_text
from dpo.records import Message, Preference


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference]:
    yield Preference(
        prompt=open_prompt(row, system="system", question="question"),
        chosen=read_text(row, "chosen"),
        rejected=read_text(row, "rejected"),
    )


EXAMPLES = (
    (
        {"system": "Be brief.", "question": "Capital of Peru?", "chosen": "Lima.", "rejected": "Cusco."},
        [
            Preference(
                prompt=(Message(role="system", content="Be brief."), Message(role="user", content="Capital of Peru?")),
                chosen="Lima.",
                rejected="Cusco.",
            )
        ],
    ),
    (
        {"system": "", "question": "2 + 2?", "chosen": "4", "rejected": "5"},
        [Preference(prompt=(Message(role="user", content="2 + 2?"),), chosen="4", rejected="5")],
    ),
)

ADAPTER = Adapter(
    name="orca_dpo_pairs",
    hub_id="Intel/orca_dpo_pairs",
    split="train",
    columns=("system", "question", "chosen", "rejected"),
    convert=convert,
    examples=EXAMPLES,
)
