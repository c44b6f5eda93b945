"""Conversion of a batch of raw rows to encoded pairs: convert, check, encode, filter, and count every drop."""

__all__ = ["TRAITS", "Converted", "Converter", "convert_row"]

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import ValidationError

from dpo.adapters.base import Adapter, AdapterOptions, Row
from dpo.data.cleaning.contamination import Contamination
from dpo.data.cleaning.filters import check_encoded, check_pair
from dpo.data.cleaning.near_duplicates import signature
from dpo.data.cleaning.split import opening_key, prompt_key, text_key
from dpo.data.config import DataConfig
from dpo.data.reading.source import Source
from dpo.data.rendering.encoding import EncodedPair, PairEncoder
from dpo.data.rendering.template import load_template
from dpo.data.rendering.tokenization import Tokenizer
from dpo.data.report import SourceReport
from dpo.errors import AdapterError, DataError
from dpo.records import Drop, Preference

Item = TypeVar("Item")

BATCH_PAIRS = 500
"""Number of pairs that are encoded together."""
STRICT_DROPS = ("no_end_token", "unknown_role")
"""Drop reasons that --strict turns into errors. Most other reasons are the normal work of a filter."""
STRICT_FLAGS = ("boundary_shift", "double_bos")
SET_ASIDE = {"rejected": None, "score_chosen": None, "score_rejected": None}
"""Fields that stage sft clears before any check."""

SCHEMA = pa.schema(
    {
        "source": pa.string(),
        "row": pa.int64(),
        "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "chosen": pa.string(),
        "rejected": pa.string(),
        "score_chosen": pa.float64(),
        "score_rejected": pa.float64(),
        "prompt_ids": pa.list_(pa.int32()),
        "chosen_ids": pa.list_(pa.int32()),
        "rejected_ids": pa.list_(pa.int32()),
        "flags": pa.list_(pa.string()),
    }
)
"""Columns of a prepared pair. In stage sft, `rejected` and the scores are null, and `rejected_ids` is empty."""
TRAITS = pa.schema(
    {
        "source": pa.string(),
        "row": pa.int64(),
        "prompt_key": pa.binary(16),
        "chosen_key": pa.binary(16),
        "rejected_key": pa.binary(16),  # in stage sft the same for all rows
        "opening_key": pa.binary(),  # variable length, so that it needs no memory when it is not used
        "chosen_length": pa.int32(),
        "rejected_length": pa.int32(),
        "flags": pa.list_(pa.string()),
        "signature": pa.binary(),
    }
)
"""Data of each pair that stays in memory, for decisions that need all pairs, such as duplicates and the split."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """Result of converting a batch of rows."""

    pairs: list[pa.RecordBatch]
    """Encoded pairs in order, with the columns of SCHEMA."""
    traits: list[pa.RecordBatch]
    """One row for each pair, with the columns of TRAITS."""
    report: SourceReport
    """Counts of the rows that were read and dropped. No pair is counted as kept yet."""


class Converter:
    """Turns raw rows of a source into encoded pairs. Calls are independent, so any process can do them.

    Args:
        config: The data flags.
        tokenizer: The model's tokenizer.
    """

    def __init__(self, config: DataConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.options = config.adapter_options()
        self.contamination = Contamination.read(config.decontaminate)
        template = load_template(config.template, own=tokenizer.chat_template, special_tokens=tokenizer.special_tokens)
        self.encoder = PairEncoder(
            template,
            tokenizer,
            special_tokens_in_text=config.special_tokens_in_text,
            add_control_tokens=config.add_control_tokens,
        )

    def convert(self, source: Source, rows: Iterable[tuple[int, Any]]) -> Converted:
        """Convert numbered rows to the pairs that pass every check of a single pair, in order, and count the drops.

        Raises:
            AdapterError: if the adapter breaks its contract.
            DataError: if a row has a property that the user's flags turn into an error.
        """
        report = SourceReport()
        pairs, traits = [], []
        for preferences in batched(self.checked_preferences(source, rows, report), BATCH_PAIRS):
            kept = list(self.encoded_pairs(preferences, report))
            if not kept:
                continue
            pairs.append(pa.RecordBatch.from_pylist([as_record(pair) for pair in kept], SCHEMA))
            traits.append(pa.RecordBatch.from_pylist([self.traits_of(pair) for pair in kept], TRAITS))
        return Converted(pairs=pairs, traits=traits, report=report)

    def checked_preferences(
        self, source: Source, rows: Iterable[tuple[int, Any]], report: SourceReport
    ) -> Iterator[Preference]:
        for number, row in rows:
            report.raw_rows += 1
            if not source.is_sampled(number, self.config.seed):
                report.enter()
                report.drop(Drop("not_sampled", f"left out by the fraction @{source.fraction:g}"), number)
                continue
            try:
                candidates = self.candidates(row, source.adapter)
            except AdapterError as error:
                raise AdapterError(f"{source.spec}, row {number}: {error}") from error
            report.enter(len(candidates))
            for candidate in candidates:
                drop = candidate if isinstance(candidate, Drop) else self.check(candidate)
                if drop is not None:
                    self.refuse_if_strict(drop, source.spec, number)
                    report.drop(drop, number)
                else:
                    assert isinstance(candidate, Preference)
                    yield candidate.model_copy(update={"source": source.spec, "row": number})

    def candidates(self, row: Any, adapter: Adapter) -> list[Preference | Drop]:
        """Return the preferences and drops of a row. In stage sft, the rejected answers and scores are removed."""
        found = convert_row(row, adapter, self.options)
        if self.config.stage == "dpo":
            return found
        return [one if isinstance(one, Drop) else one.model_copy(update=SET_ASIDE) for one in found]

    def check(self, preference: Preference) -> Drop | None:
        return check_pair(preference, self.config) or self.contamination.check(preference)

    def encoded_pairs(self, preferences: Sequence[Preference], report: SourceReport) -> Iterator[EncodedPair]:
        for preference, result in zip(preferences, self.encoder.encode(preferences), strict=True):
            drop = result if isinstance(result, Drop) else check_encoded(result, self.config)
            if isinstance(result, EncodedPair):
                report.measure(result.lengths, self.config.max_length)
            if drop is not None:
                self.refuse_if_strict(drop, preference.source, preference.row)
                report.drop(drop, preference.row)
                continue
            assert isinstance(result, EncodedPair)
            if self.config.strict and (flags := [flag for flag in result.flags if flag in STRICT_FLAGS]):
                raise strict_error(flags[0], "", preference.source, preference.row)
            yield result

    def refuse_if_strict(self, drop: Drop, source: str, row: int) -> None:
        if self.config.strict and drop.reason in STRICT_DROPS:
            raise strict_error(drop.reason, drop.detail, source, row)

    def traits_of(self, pair: EncodedPair) -> dict[str, Any]:
        preference = pair.preference
        return {
            "source": preference.source,
            "row": preference.row,
            "prompt_key": prompt_key(preference),
            "chosen_key": text_key(preference.chosen),
            "rejected_key": text_key(preference.rejected or ""),
            "opening_key": opening_key(preference) if self.config.turns == "all" else None,
            "chosen_length": len(pair.chosen_ids),
            "rejected_length": len(pair.rejected_ids),
            "flags": pair.flags,
            "signature": signature(preference) if self.config.drop_duplicates == "near" else None,
        }


def strict_error(reason: str, detail: str, source: str, row: int) -> DataError:
    found = f": {detail}" if detail else ""
    return DataError(
        f"--strict: {source}, row {row}: {reason}{found}\n"
        "  Correct the row, choose another --template, or leave out --strict to only count such rows."
    )


def convert_row(row: Row, adapter: Adapter, options: AdapterOptions) -> list[Preference | Drop]:
    """Run an adapter on a row. The result is at least one preference or drop, whatever the row contains.

    Raises:
        AdapterError: if the adapter returns something else, or raises an error that a malformed row does not explain.
    """
    if not isinstance(row, dict):
        return [Drop("malformed_row", f"expected an object, found {type(row).__name__}")]
    try:
        candidates = list(adapter.convert(row, options)) or [Drop("no_pair", "the adapter returned nothing")]
    except Drop as drop:
        return [drop]
    except ValidationError as error:
        return [drop_for(error)]
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # Typical errors of an adapter's code on a row with an unexpected structure.
        return [Drop("malformed_row", f"{type(error).__name__}: {error}")]
    except (Exception, SystemExit) as error:  # raised on purpose or by a defect, so do not count it as a malformed row
        raise AdapterError(
            f"adapter '{adapter.name}' raised {type(error).__name__}: {error}\n"
            "  Raise a Drop for a row that is not a pair. `dpo adapters --check FILE` tests an adapter."
        ) from error
    for candidate in candidates:
        if not isinstance(candidate, Preference | Drop):
            raise AdapterError(
                f"adapter '{adapter.name}' returned {type(candidate).__name__}, expected Preference or Drop.\n"
                "  convert must yield each pair with `yield Preference(...)`, or return a list of pairs."
            )
    return candidates


def drop_for(error: ValidationError) -> Drop:
    """Return the Drop for a validation error of pydantic."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "literal_error" and where.endswith("role"):
        return Drop("unknown_role", f"found the role {first['input']!r:.40}, expected system, user or assistant")
    if first["type"] == "too_short":
        return Drop("empty_prompt", "the row has no prompt")
    if first["type"] == "value_error":
        return Drop("prompt_not_user", first["msg"])
    return Drop("malformed_row", f"{where}: {first['msg']}")


def as_record(pair: EncodedPair) -> dict[str, Any]:
    preference = pair.preference
    return {
        "source": preference.source,
        "row": preference.row,
        "prompt": [{"role": message.role, "content": message.content} for message in preference.prompt],
        "chosen": preference.chosen,
        "rejected": preference.rejected,
        "score_chosen": preference.score_chosen,
        "score_rejected": preference.score_rejected,
        "prompt_ids": pair.prompt_ids,
        "chosen_ids": pair.chosen_ids,
        "rejected_ids": pair.rejected_ids,
        "flags": pair.flags,
    }


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of a number of items; the last one may be shorter. Python 3.12 has this in itertools."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch
