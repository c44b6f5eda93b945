"""argilla/distilabel-intel-orca-dpo-pairs: Intel/orca_dpo_pairs, judged again, with ties marked and errors swapped.

A raw row:

    {"system": "Be brief.", "input": "Name a noble gas.", "chosen": "Neon.", "rejected": "Oxygen.",
     "rating": [9.0, 2.0], "chosen_score": 9.0, "status": "unchanged", "in_gsm8k_train": false}

`status` is unchanged, swapped (chosen and rejected were exchanged, so that chosen is the better answer), or tie. The
scores of a pair are the larger and the smaller value of `rating`; some rows have none. A tie gets two equal scores, so
that the tie filter drops it.
"""

import json
from collections.abc import Iterator

from dpo.adapters.base import Adapter, AdapterOptions, Row, open_prompt, read_number, read_text
from dpo.records import Drop, Message, Preference


def convert(row: Row, options: AdapterOptions) -> Iterator[Preference]:
    scores: tuple[float | None, float | None] = (0, 0) if row["status"] == "tie" else read_ratings(row)
    yield Preference(
        prompt=open_prompt(row, system="system", question="input"),
        chosen=read_text(row, "chosen"),
        rejected=read_text(row, "rejected"),
        score_chosen=scores[0],
        score_rejected=scores[1],
    )


def read_ratings(row: Row) -> tuple[float, float] | tuple[None, None]:
    """Return the larger and the smaller rating, or None twice. The ratings may be JSON text, as in CSV files."""
    ratings = json.loads(row["rating"] or "null") if isinstance(row["rating"], str | None) else row["rating"]
    if ratings is None:
        return None, None
    if len(ratings) != 2:
        raise Drop("malformed_row", f"column 'rating' contains {len(ratings)} ratings, expected 2")
    lower, higher = sorted(read_number({"rating": rating}, "rating") for rating in ratings)
    return higher, lower


_ROW = {
    "system": "Be brief.",
    "input": "Name a noble gas.",
    "chosen": "Neon.",
    "rejected": "Oxygen.",
    "rating": [2.0, 9.0],
    "chosen_score": 9.0,
    "status": "swapped",
    "in_gsm8k_train": False,
}
_PAIR = Preference(
    prompt=(Message(role="system", content="Be brief."), Message(role="user", content="Name a noble gas.")),
    chosen="Neon.",
    rejected="Oxygen.",
    score_chosen=9,
    score_rejected=2,
)

EXAMPLES = (
    (_ROW, [_PAIR]),
    (_ROW | {"status": "tie"}, [_PAIR.model_copy(update={"score_chosen": 0.0, "score_rejected": 0.0})]),
    (_ROW | {"rating": None}, [_PAIR.model_copy(update={"score_chosen": None, "score_rejected": None})]),
    ({key: value for key, value in _ROW.items() if key != "chosen"}, [Drop("malformed_row")]),
)

ADAPTER = Adapter(
    name="distilabel_orca",
    hub_id="argilla/distilabel-intel-orca-dpo-pairs",
    split="train",
    columns=("system", "input", "chosen", "rejected", "rating", "status"),
    convert=convert,
    examples=EXAMPLES,
)
