"""Open-Orca/SlimOrca: OpenOrca questions with GPT-4's answers, without those that contradict the original data sets.

A raw row:

    {"conversations": [{"from": "system", "value": "Be brief.", "weight": null},
                       {"from": "human", "value": "Name a noble gas.", "weight": 0},
                       {"from": "gpt", "value": "Neon.", "weight": 1}]}

Each row gives instruction rows. The format is ShareGPT's, and other files in this format are read in the same way, with
slim_orca=rows.json. A gpt turn with `weight` 0 is not used as an answer; `weight` may be missing.
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
