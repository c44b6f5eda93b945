"""The pairs that a model is held against: read with its own tokenizer, from sources or from a prepared folder."""

__all__ = ["HeldOut", "check_same_tokens", "load_held_out"]

from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from dpo.data.config import DataConfig
from dpo.data.pipeline import PreparedData, prepare
from dpo.data.rendering.encoding import EncodedPair, PairEncoder, load_known_template
from dpo.data.rendering.template import Template
from dpo.data.rendering.tokenization import Tokenizer
from dpo.data.report import DataReport
from dpo.errors import DataError, ModelError
from dpo.records import Preference

PARTS = ("prompt_ids", "chosen_ids", "rejected_ids")
NUM_CHECKED_PAIRS = 8
"""Pairs of a prepared folder that are encoded again with the model's tokenizer."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Pairs as one model sees them."""

    pairs: Dataset
    """Prepared pairs, in the order of the sources."""
    report: DataReport
    """The account of the rows."""


def load_held_out(
    config: DataConfig,
    tokenizer: Tokenizer,
    *,
    limit: int | None,
    progress: bool,
    whose: str = "the model's tokenizer",
) -> HeldOut:
    """The kept pairs of sources, or the held-out ones of a prepared folder.

    Args:
        config: What to read and what to keep.
        tokenizer: The model's.
        limit: Most pairs, the first ones; None takes all.
        progress: Whether to show a bar.
        whose: What an error about the template calls the tokenizer.

    Raises:
        DPOError: a source or the template cannot be used, or nothing is kept.
        DataError: the folder holds answers in place of pairs, or no held-out ones, or its ids are of another tokenizer.
    """
    if config.prepared is None:
        load_known_template(config.template, tokenizer, whose=whose)  # else the advice would be --add_control_tokens
        prepared = prepare(config, tokenizer, progress=progress)
        rows = prepared.train
    else:
        prepared, rows = open_eval_split(config, tokenizer)
    return HeldOut(pairs=rows.select(range(min(limit or len(rows), len(rows)))), report=prepared.report)


def open_eval_split(config: DataConfig, tokenizer: Tokenizer) -> tuple[PreparedData, Any]:
    """A preparation and its held-out pairs.

    A trained model has the template that it was trained with, so its tokenizer is not the one that prepared, to the
    letter. What counts is that it gives the same ids.
    """
    folder = config.prepared_folder
    try:
        prepared = PreparedData.load(folder)
        rows = prepared.eval
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"--prepared {folder}: {type(error).__name__}: {error}\n"
            f"  Expected what `dpo prepare --output {folder}` makes."
        ) from error
    if prepared.report.stage != "dpo":
        raise DataError(
            f"--prepared {folder}: it was prepared with --stage {prepared.report.stage}, whose rows have one answer "
            "each; expected pairs.\n"
            "  Prepare it with --stage dpo, the default, or name the pairs: --pairs ADAPTER=SOURCE"
        )
    if rows is None:
        raise DataError(
            f"--prepared {folder}: it holds no pairs out.\n"
            "  Prepare it with --validation_split or --eval_datasets, or name the pairs: --pairs ADAPTER=SOURCE"
        )
    template = Template(
        name=prepared.config["template"], source=prepared.chat_template, special_tokens=tokenizer.special_tokens
    )
    if not gives_same_ids(rows.select(range(min(NUM_CHECKED_PAIRS, len(rows)))), template, tokenizer):
        raise DataError(
            f"--prepared {folder}: its token ids are of another tokenizer than the model's.\n"
            "  Name the sources instead: --pairs ADAPTER=SOURCE, with the data flags it was prepared with."
        )
    return prepared, rows


def gives_same_ids(pairs: Dataset, template: Template, tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer makes of prepared pairs the ids that they have."""
    if not all(map(tokenizer.is_one_id, template.control_tokens)):
        return False
    encoder = PairEncoder(template, tokenizer, special_tokens_in_text="keep")
    for pair in pairs:
        preference = Preference(prompt=pair["prompt"], chosen=pair["chosen"], rejected=pair["rejected"])
        (again,) = encoder.encode([preference])
        if not isinstance(again, EncodedPair) or any(getattr(again, part) != pair[part] for part in PARTS):
            return False
    return True


def check_same_tokens(held_out: HeldOut, tokenizer: Tokenizer, reference: Tokenizer, names: tuple[str, str]) -> None:
    """Refuse a reference whose tokenizer means other tokens by the pairs' ids.

    Args:
        held_out: Pairs as the model sees them.
        tokenizer: The model's.
        reference: The reference's.
        names: Of the model and the reference, as the user gave them.

    Raises:
        ModelError: naming the first id.
    """
    rows = held_out.pairs.select_columns(list(PARTS))
    ids = {token for pair in rows for part in PARTS for token in pair[part]}
    for token in sorted(ids):
        here, there = tokenizer.backend.id_to_token(token), reference.backend.id_to_token(token)
        if here != there:
            raise ModelError(
                f"--reference {names[1]}: its token {token} is {there!r}, and that of {names[0]} is {here!r}.\n"
                "  Rewards compare the same tokens: name the model that the other was trained from."
            )
