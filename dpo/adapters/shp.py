"""stanfordnlp/SHP: Reddit posts with two comments and their votes.

A raw row:

    {"post_id": "1a", "domain": "askscience_train", "history": "Name a noble gas.",
     "human_ref_A": "Neon.", "human_ref_B": "Oxygen.", "labels": 1,
     "score_A": 12, "score_B": 3, "score_ratio": 4.0}

`labels` is 1 if A was preferred and 0 if B was. Close scores say little about which answer is better, so pairs with a
`score_ratio` below --min_score_ratio are dropped. The default of 2 is that of the DPO authors' code
(eric-mitchell/direct-preference-optimization).
"""

from collections.abc import Iterator

from dpo.adapters.base import Adapter, AdapterOptions, Row, read_number, read_text
from dpo.records import Drop, Message, Preference


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference]:
    if read_number(row, "score_ratio") < options.min_score_ratio:
        raise Drop(
            "low_score_ratio",
            f"score_ratio {row['score_ratio']} is below --min_score_ratio {options.min_score_ratio:g}",
        )
    label = read_number(row, "labels")
    if label not in (0, 1):
        raise Drop("malformed_row", f"column 'labels' contains {label:g}, expected 0 or 1")
    chosen, rejected = ("A", "B") if label == 1 else ("B", "A")
    yield Preference(
        prompt=(Message(role="user", content=read_text(row, "history")),),
        chosen=read_text(row, f"human_ref_{chosen}"),
        rejected=read_text(row, f"human_ref_{rejected}"),
        score_chosen=read_number(row, f"score_{chosen}"),
        score_rejected=read_number(row, f"score_{rejected}"),
    )


_ROW = {
    "post_id": "1a",
    "domain": "askscience_train",
    "history": "Name a noble gas.",
    "human_ref_A": "Neon.",
    "human_ref_B": "Oxygen.",
    "labels": 1,
    "score_A": 12,
    "score_B": 3,
    "score_ratio": 4.0,
}
_QUESTION = (Message(role="user", content="Name a noble gas."),)

EXAMPLES = (
    (
        _ROW,
        [Preference(prompt=_QUESTION, chosen="Neon.", rejected="Oxygen.", score_chosen=12, score_rejected=3)],
    ),
    (
        _ROW | {"labels": 0, "score_A": 3, "score_B": 12},
        [Preference(prompt=_QUESTION, chosen="Oxygen.", rejected="Neon.", score_chosen=12, score_rejected=3)],
    ),
    (_ROW | {"score_B": 10, "score_ratio": 1.2}, [Drop("low_score_ratio")]),
)

ADAPTER = Adapter(
    name="shp",
    hub_id="stanfordnlp/SHP",
    split="train",
    columns=("history", "human_ref_A", "human_ref_B", "labels", "score_A", "score_B", "score_ratio"),
    convert=convert,
    examples=EXAMPLES,
)
