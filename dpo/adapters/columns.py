"""Any table whose columns the user names with flags.

A raw row, for columns=rows.csv --column_prompt question --column_chosen good --column_rejected bad:

    {"question": "Name a noble gas.", "good": "Neon.", "bad": "Oxygen."}

and a row that needs no --column flags:

    {"prompt": "Name a noble gas.", "chosen": "Neon.", "rejected": "Oxygen."}

Columns contain text or messages, as in `triplets`. Rows without a rejected answer are instruction rows, which
--stage sft --column_prompt question --column_chosen answer trains on. --column_system names the column of the system
message, --column_score_chosen and --column_score_rejected name the columns of the scores. The default names are prompt,
chosen, rejected, system, score_chosen and score_rejected.
"""

from collections.abc import Iterator

from dpo.adapters import triplets
from dpo.adapters.base import Adapter, AdapterOptions, Row, pair_conversations, read_text
from dpo.records import Drop, Message, Preference


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference]:
    named = {column: value for column, value in row.items() if column not in options.columns}
    named |= {ours: row[theirs] for ours, theirs in options.columns.items()}
    chosen, rejected = triplets.read_answer(named, "chosen"), triplets.read_rejected(named)
    system = read_text(named, "system") if named.get("system") else ""
    before = (Message(role="system", content=system),) if system else ()
    yield pair_conversations(named, chosen, rejected, prompt=before + triplets.read_prompt(named))


_QUESTION = Message(role="user", content="Name a noble gas.")

EXAMPLES = (
    (
        {"prompt": "Name a noble gas.", "chosen": "Neon.", "rejected": "Oxygen."},
        [Preference(prompt=(_QUESTION,), chosen="Neon.", rejected="Oxygen.")],
    ),
    (
        {"system": "Be brief.", "prompt": "Name a noble gas.", "chosen": "Neon.", "rejected": "Oxygen."},
        [
            Preference(
                prompt=(Message(role="system", content="Be brief."), _QUESTION), chosen="Neon.", rejected="Oxygen."
            )
        ],
    ),
    ({"prompt": "Name a noble gas.", "chosen": "Neon."}, [Preference(prompt=(_QUESTION,), chosen="Neon.")]),
    ({"prompt": "Name a noble gas.", "chosen": 7, "rejected": "Oxygen."}, [Drop("malformed_row")]),
)

ADAPTER = Adapter(
    name="columns",
    hub_id=None,
    split="train",
    columns=("prompt", "chosen", "rejected"),
    rejected_is_optional=True,
    columns_are_named=True,
    convert=convert,
    examples=EXAMPLES,
)
