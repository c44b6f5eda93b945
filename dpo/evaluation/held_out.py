"""Loads the held-out pairs for a model, with the model's own tokenizer, from sources or from a prepared folder."""

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
"""Number of pairs of a prepared folder that are encoded again with the model's tokenizer, to compare the ids."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Held-out pairs as the token ids of one model."""

    pairs: Dataset
    """Prepared pairs, in the order of the sources."""
    report: DataReport
    """The data report of the rows."""


def load_held_out(
    config: DataConfig,
    tokenizer: Tokenizer,
    *,
    limit: int | None,
    progress: bool,
    whose: str = "the model's tokenizer",
) -> HeldOut:
    """Load the kept pairs of sources, or the held-out pairs of a prepared folder.

    Args:
        config: The data flags: what to read and what to keep.
        tokenizer: Tokenizer of the model.
        limit: Largest number of pairs, from the first; None takes all.
        progress: Whether to show a progress bar.
        whose: Name of the tokenizer for an error about the template.

    Raises:
        DPOError: if a source or the template cannot be used, or no pair is kept.
        DataError: if the folder contains answers instead of pairs, has no held-out pairs, or was prepared with another
            tokenizer.
    """
    if config.prepared is None:
        # Checked first, since prepare() would advise --add_control_tokens, which is a training flag.
        load_known_template(config.template, tokenizer, whose=whose)
        prepared = prepare(config, tokenizer, progress=progress)
        rows = prepared.train
    else:
        prepared, rows = open_eval_split(config, tokenizer)
    return HeldOut(pairs=rows.select(range(min(limit or len(rows), len(rows)))), report=prepared.report)


def open_eval_split(config: DataConfig, tokenizer: Tokenizer) -> tuple[PreparedData, Any]:
    """Open a prepared folder and its held-out pairs.

    The tokenizer of a trained model includes its training template, so it is not identical to the tokenizer that
    prepared the pairs. It only has to give the same ids.
    """
    folder = config.prepared_folder
    try:
        prepared = PreparedData.load(folder)
        rows = prepared.eval
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"--prepared {folder}: {type(error).__name__}: {error}\n"
            f"  Expected a folder that `dpo prepare --output {folder}` made."
        ) from error
    if prepared.report.stage != "dpo":
        raise DataError(
            f"--prepared {folder}: expected pairs, found rows with one answer, prepared with --stage "
            f"{prepared.report.stage}.\n"
            "  Prepare the folder with --stage dpo, the default, or pass the pairs: --pairs ADAPTER=SOURCE"
        )
    if rows is None:
        raise DataError(
            f"--prepared {folder}: the folder contains no held-out pairs.\n"
            "  Prepare it with --validation_split or --eval_datasets, or pass the pairs: --pairs ADAPTER=SOURCE"
        )
    template = Template(
        name=prepared.config["template"], source=prepared.chat_template, special_tokens=tokenizer.special_tokens
    )
    if not gives_same_ids(rows.select(range(min(NUM_CHECKED_PAIRS, len(rows)))), template, tokenizer):
        raise DataError(
            f"--prepared {folder}: its token ids were made by another tokenizer than the model's.\n"
            "  Pass the sources instead: --pairs ADAPTER=SOURCE, with the data flags that prepared the folder."
        )
    return prepared, rows


def gives_same_ids(pairs: Dataset, template: Template, tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer encodes prepared pairs to the ids that they contain."""
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
    """Refuse a reference model whose tokenizer has other tokens for the ids of the pairs.

    Args:
        held_out: Pairs as token ids of the model.
        tokenizer: Tokenizer of the model.
        reference: Tokenizer of the reference model.
        names: Names of the model and of the reference model, as the user gave them.

    Raises:
        ModelError: if a token differs. The message gives the first such id.
    """
    rows = held_out.pairs.select_columns(list(PARTS))
    ids = {token for pair in rows for part in PARTS for token in pair[part]}
    for token in sorted(ids):
        here, there = tokenizer.backend.id_to_token(token), reference.backend.id_to_token(token)
        if here != there:
            raise ModelError(
                f"--reference {names[1]}: its token {token} is {there!r}, but for {names[0]} this id is {here!r}.\n"
                f"  Rewards need the same tokens in both models: pass the model that {names[0]} was trained from."
            )
