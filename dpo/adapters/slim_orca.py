"""Open-Orca/SlimOrca: OpenOrca questions with those of GPT-4's answers that agree with the data sets they are from.

A raw row:

    {"conversations": [{"from": "system", "value": "Be brief.", "weight": null},
                       {"from": "human", "value": "Name a noble gas.", "weight": 0},
                       {"from": "gpt", "value": "Neon.", "weight": 1}]}

An instruction row, in ShareGPT's format: other files of it are read alike, slim_orca=rows.json. A gpt turn of weight 0
is no answer to train on; `weight` may be missing.
"""

from collections.abc import Iterator

from dpo.adapters.base import Adapter, AdapterOptions, Row, answers_in, read_list
from dpo.adapters.sharegpt import read_turn
from dpo.records import Drop, Message, Preference


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference | Drop]:
    turns = read_list(row, "conversations")
    untrained = {place for place, turn in enumerate(turns) if turn.get("weight") == 0}
    return answers_in([read_turn(turn) for turn in turns], options, untrained=untrained)


_SYSTEM = {"from": "system", "value": "Be brief.", "weight": None}
_HUMAN = {"from": "human", "value": "Name a noble gas.", "weight": 0}
_GPT = {"from": "gpt", "value": "Neon.", "weight": 1}
_QUESTION = Message(role="user", content="Name a noble gas.")

EXAMPLES = (
    (
        {"conversations": [_SYSTEM, _HUMAN, _GPT]},
        [Preference(prompt=(Message(role="system", content="Be brief."), _QUESTION), chosen="Neon.")],
    ),
    ({"conversations": [_HUMAN, _GPT, _HUMAN]}, [Preference(prompt=(_QUESTION,), chosen="Neon.")]),
    ({"conversations": [_HUMAN, _GPT | {"weight": 0}]}, [Drop("no_answer")]),
)

ADAPTER = Adapter(
    name="slim_orca",
    hub_id="Open-Orca/SlimOrca",
    split="train",
    columns=("conversations",),
    convert=convert,
    examples=EXAMPLES,
)
