"""ShareGPT's file format with two answers, as LLaMA-Factory documents it for preference data.

A raw row:

    {"conversations": [{"from": "human", "value": "Name a noble gas."}],
     "chosen": {"from": "gpt", "value": "Neon."},
     "rejected": {"from": "gpt", "value": "Oxygen."},
     "system": "Be brief."}

This is a format and not a data set, so name the file: sharegpt=rows.json. `system` may be missing or empty. A row with
turns of tools (function_call, observation) is dropped as unknown_role.
"""

from collections.abc import Iterator, Mapping

from dpo.adapters.base import Adapter, AdapterOptions, Row, read_list, read_text
from dpo.records import Drop, Message, Preference, Role

ROLES: Mapping[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference]:
    system = [Message(role="system", content=read_text(row, "system"))] if row.get("system") else []
    yield Preference(
        prompt=(*system, *map(read_turn, read_list(row, "conversations"))),
        chosen=read_answer(row, "chosen"),
        rejected=read_answer(row, "rejected"),
    )


def read_turn(turn: Row) -> Message:
    speaker = read_text(turn, "from")
    if speaker not in ROLES:
        raise Drop("unknown_role", f"found the speaker {speaker!r:.40}, expected one of {', '.join(ROLES)}")
    return Message(role=ROLES[speaker], content=read_text(turn, "value"))


def read_answer(row: Row, column: str) -> str:
    answer = read_turn(row[column])
    if answer.role != "assistant":
        raise Drop("malformed_row", f"column '{column}' is a turn of '{answer.role}', expected an assistant turn")
    return answer.content


_ROW = {
    "conversations": [{"from": "human", "value": "Name a noble gas."}],
    "chosen": {"from": "gpt", "value": "Neon."},
    "rejected": {"from": "gpt", "value": "Oxygen."},
    "system": "Be brief.",
}
_QUESTION = Message(role="user", content="Name a noble gas.")

EXAMPLES = (
    (
        _ROW,
        [
            Preference(
                prompt=(Message(role="system", content="Be brief."), _QUESTION), chosen="Neon.", rejected="Oxygen."
            )
        ],
    ),
    (_ROW | {"system": ""}, [Preference(prompt=(_QUESTION,), chosen="Neon.", rejected="Oxygen.")]),
    (_ROW | {"conversations": [{"from": "observation", "value": "{}"}]}, [Drop("unknown_role")]),
)

ADAPTER = Adapter(
    name="sharegpt",
    hub_id=None,
    split="train",
    columns=("conversations", "chosen", "rejected"),
    convert=convert,
    examples=EXAMPLES,
)
