"""One batch of raw rows to encoded pairs: convert, check, encode, filter, and count every way out."""

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
"""Pairs that are encoded at once."""
STRICT_DROPS = ("no_end_token", "unknown_role")
"""Drops that --strict makes errors; most others are what a filter is for."""
STRICT_FLAGS = ("boundary_shift", "double_bos")
SET_ASIDE = {"rejected": None, "score_chosen": None, "score_rejected": None}
"""What stage sft does not look at."""

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
"""A prepared pair. In stage sft `rejected` and the scores are null, and `rejected_ids` is empty."""
TRAITS = pa.schema(
    {
        "source": pa.string(),
        "row": pa.int64(),
        "prompt_key": pa.binary(16),
        "chosen_key": pa.binary(16),
        "rejected_key": pa.binary(16),  # of stage sft, the same for all
        "opening_key": pa.binary(),  # of varying length, so that what is not asked for takes no room
        "chosen_length": pa.int32(),
        "rejected_length": pa.int32(),
        "flags": pa.list_(pa.string()),
        "signature": pa.binary(),
    }
)
"""The little of a pair that is kept in memory for what can only be decided over all pairs: duplicates, the split."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What became of a batch of rows."""

    pairs: list[pa.RecordBatch]
    """With the columns of SCHEMA, in order."""
    traits: list[pa.RecordBatch]
    """With the columns of TRAITS, one row a pair."""
    account: SourceReport
    """Rows entered and dropped; nothing is counted as kept yet."""


class Converter:
    """Turns raw rows of a source into encoded pairs. One call depends on no other, so that any process can do it.

    Args:
        config: What to keep.
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
        """The pairs of numbered rows that stand every check by themselves, in order; everything else is counted.

        Raises:
            AdapterError: the adapter breaks its contract.
            DataError: a row is what the user asked to be an error.
        """
        account = SourceReport()
        pairs, traits = [], []
        for preferences in batched(self.checked_preferences(source, rows, account), BATCH_PAIRS):
            kept = list(self.encoded_pairs(preferences, account))
            if not kept:
                continue
            pairs.append(pa.RecordBatch.from_pylist([as_record(pair) for pair in kept], SCHEMA))
            traits.append(pa.RecordBatch.from_pylist([self.traits_of(pair) for pair in kept], TRAITS))
        return Converted(pairs=pairs, traits=traits, account=account)

    def checked_preferences(
        self, source: Source, rows: Iterable[tuple[int, Any]], account: SourceReport
    ) -> Iterator[Preference]:
        for number, row in rows:
            account.raw_rows += 1
            if not source.is_sampled(number, self.config.seed):
                account.enter()
                account.drop(Drop("not_sampled", f"@{source.fraction:g}"), number)
                continue
            try:
                candidates = self.candidates(row, source.adapter)
            except AdapterError as error:
                raise AdapterError(f"{source.spec}, row {number}: {error}") from error
            account.enter(len(candidates))
            for candidate in candidates:
                drop = candidate if isinstance(candidate, Drop) else self.check(candidate)
                if drop is not None:
                    self.refuse_if_strict(drop, source.spec, number)
                    account.drop(drop, number)
                else:
                    assert isinstance(candidate, Preference)
                    yield candidate.model_copy(update={"source": source.spec, "row": number})

    def candidates(self, row: Any, adapter: Adapter) -> list[Preference | Drop]:
        """What the stage takes of what an adapter makes of a row."""
        found = convert_row(row, adapter, self.options)
        if self.config.stage == "dpo":
            return found
        return [one if isinstance(one, Drop) else one.model_copy(update=SET_ASIDE) for one in found]

    def check(self, preference: Preference) -> Drop | None:
        return check_pair(preference, self.config) or self.contamination.check(preference)

    def encoded_pairs(self, preferences: Sequence[Preference], account: SourceReport) -> Iterator[EncodedPair]:
        for preference, result in zip(preferences, self.encoder.encode(preferences), strict=True):
            drop = result if isinstance(result, Drop) else check_encoded(result, self.config)
            if isinstance(result, EncodedPair):
                account.measure(result.lengths, self.config.max_length)
            if drop is not None:
                self.refuse_if_strict(drop, preference.source, preference.row)
                account.drop(drop, preference.row)
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
        "  Mend the row or choose another --template; without --strict such rows are counted and shown."
    )


def convert_row(row: Row, adapter: Adapter, options: AdapterOptions) -> list[Preference | Drop]:
    """What an adapter makes of a row. Whatever the row holds, the answer is preferences or drops, at least one.

    Raises:
        AdapterError: the adapter gave something else, or raised what no row's shape explains.
    """
    if not isinstance(row, dict):
        return [Drop("malformed_row", f"expected an object, found {type(row).__name__}")]
    try:
        candidates = list(adapter.convert(row, options)) or [Drop("no_pair")]
    except Drop as drop:
        return [drop]
    except ValidationError as error:
        return [drop_for(error)]
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # What a row of unforeseen shape makes of an adapter's code.
        return [Drop("malformed_row", f"{type(error).__name__}: {error}")]
    except (Exception, SystemExit) as error:  # anyone's code; what it raises on purpose should not be counted away
        raise AdapterError(
            f"adapter '{adapter.name}' raised {type(error).__name__}: {error}\n"
            "  `python -m dpo adapters --check FILE` runs an adapter by itself; a row that is no pair is a Drop."
        ) from error
    for candidate in candidates:
        if not isinstance(candidate, Preference | Drop):
            raise AdapterError(
                f"adapter '{adapter.name}' gave {type(candidate).__name__}, expected Preference or Drop.\n"
                "  convert yields each pair: write `yield Preference(...)`, or return a list of them."
            )
    return candidates


def drop_for(error: ValidationError) -> Drop:
    """The reason behind pydantic's refusal of a record."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "literal_error" and where.endswith("role"):
        return Drop("unknown_role", f"found the role {first['input']!r:.40}, expected system, user or assistant")
    if first["type"] == "too_short":
        return Drop("empty_prompt", "there is no prompt")
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
    """Lists of that many items, the last one shorter. itertools has it from Python 3.12 on."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch
