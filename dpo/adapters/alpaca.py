"""tatsu-lab/alpaca: instructions, some with an additional input, and answers by text-davinci-003.

A raw row:

    {"instruction": "Name the gas.", "input": "Its symbol is Ne.", "output": "Neon.", "text": "Below is ..."}

Each row is an instruction row. The prompt is the instruction, followed by a blank line and the input if there is one.
`text` is not read: it contains the same three columns, rendered with Alpaca's own template. Other files with these
columns are read in the same way, with alpaca=rows.json. They may lack `input`.
"""

from collections.abc import Iterator

from dpo.adapters.base import Adapter, AdapterOptions, Row, read_text
from dpo.records import Message, Preference


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference]:
    prompt = read_text(row, "instruction")
    if row.get("input") is not None and (given := read_text(row, "input")).strip():
        prompt = f"{prompt}\n\n{given}"
    yield Preference(prompt=(Message(role="user", content=prompt),), chosen=read_text(row, "output"))


_ROW = {"instruction": "Name the gas.", "input": "Its symbol is Ne.", "output": "Neon.", "text": "Below is ..."}

EXAMPLES = (
    (
        _ROW,
        [Preference(prompt=(Message(role="user", content="Name the gas.\n\nIts symbol is Ne."),), chosen="Neon.")],
    ),
    (
        _ROW | {"instruction": "Name a noble gas.", "input": ""},
        [Preference(prompt=(Message(role="user", content="Name a noble gas."),), chosen="Neon.")],
    ),
)

ADAPTER = Adapter(
    name="alpaca",
    hub_id="tatsu-lab/alpaca",
    split="train",
    columns=("instruction", "output"),
    convert=convert,
    examples=EXAMPLES,
)
