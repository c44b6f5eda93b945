"""argilla/distilabel-intel-orca-dpo-pairs: Intel/orca_dpo_pairs judged again, its ties marked and its errors swapped.

A raw row:

    {"system": "Be brief.", "input": "Name a noble gas.", "chosen": "Neon.", "rejected": "Oxygen.",
     "rating": [9.0, 2.0], "chosen_score": 9.0, "status": "unchanged", "in_gsm8k_train": false}

`status` is unchanged, swapped (and chosen holds the better answer since), or tie. A pair's scores are the larger and
the smaller of `rating`, which some rows lack; a tie's are equal, so that the filter for ties sees them.
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
    """The larger and the smaller of a row's two ratings, where it has them. A CSV cell holds them as JSON."""
    ratings = json.loads(row["rating"] or "null") if isinstance(row["rating"], str | None) else row["rating"]
    if ratings is None:
        return None, None
    if len(ratings) != 2:
        raise Drop("malformed_row", f"'rating' holds {len(ratings)} ratings, expected 2")
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
