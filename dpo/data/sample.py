"""The first rows of each source, for a look at a run before it: little is read, nothing is written."""

__all__ = ["NUM_ROWS", "Lengths", "Sample", "read_sample"]

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, models, pre_tokenizers

from dpo.adapters import get_adapter
from dpo.data.config import DataConfig
from dpo.data.conversion import Converted, Converter
from dpo.data.pipeline import PreparedData, open_prepared
from dpo.data.reading.opening import count_rows, open_source
from dpo.data.reading.source import Source, coming_output, parse_source
from dpo.data.rendering.tokenization import Tokenizer
from dpo.data.report import DataReport
from dpo.errors import SourceError
from dpo.hub import reach_hub
from dpo.records import Preference

NUM_ROWS = 200
"""Rows of each source that are looked at."""
CHARACTERS_A_TOKEN = 4
"""Of English text, roughly, for a vocabulary of 30,000 tokens or more."""

Lengths = tuple[int, int, int]
"""Tokens of prompt, chosen and rejected; 0 rejected ones for an answer that stands alone."""


@dataclass(kw_only=True)
class Sample:
    """What becomes of the first rows of a run's sources."""

    report: DataReport = field(default_factory=DataReport)
    lengths: list[Lengths] = field(default_factory=list)
    """Of each training pair that is kept."""
    num_pairs: float | None = 0
    """Training pairs that all rows give, going by the sample; None where the number of rows is not known."""
    added_tokens: tuple[str, ...] = ()
    """Control tokens that the model lacks, and would be given; none where its tokenizer is not known."""
    notes: list[str] = field(default_factory=list)
    """What stands in for what cannot be read, a line each."""


@dataclass(frozen=True, kw_only=True)
class FirstRows:
    """The beginning of a source."""

    source: Source
    rows: list[tuple[int, Any]]
    """With their numbers."""
    num_rows: int | None
    """Of the whole source; None where that is not known."""


def read_sample(config: DataConfig, tokenizer: Tokenizer | None, *, not_there_yet: Collection[str] = ()) -> Sample:
    """Convert, check and encode the first rows of each source. What compares pairs would need all rows, and is left.

    Args:
        config: What to read and what to keep.
        tokenizer: The model's; None where it cannot be had, so that characters are counted instead.
        not_there_yet: Files and folders that other stages are to make before the run.

    Raises:
        DPOError: a source that can be reached, the template or the tokenizer cannot be used.
    """
    if config.prepared is not None:
        return sample_of_prepared(config, tokenizer)
    sample = Sample(report=DataReport(stage=config.stage))
    is_known = tokenizer is not None
    if tokenizer is None:
        tokenizer = counts_characters()
        # Whatever the template needs, the model's own tokenizer is taken to have. Answers of one length look identical.
        template = "chatml" if config.template == "model" else config.template
        config = config.model_copy(update={"template": template, "add_control_tokens": True, "keep_identical": True})
    converter = Converter(config, tokenizer)
    if is_known:
        sample.added_tokens = tuple(converter.encoder.added_tokens)
    for spec in (*config.datasets, *config.eval_datasets):
        first = first_rows(spec, config, not_there_yet, sample.notes)
        converted = converter.convert(first.source, first.rows)
        kept = lengths_of(converted)
        account = converted.account
        account.kept = len(kept)
        account.flagged.update(
            flag for batch in converted.pairs for flags in batch["flags"].to_pylist() for flag in flags
        )
        sample.report.sources[spec] = account
        if spec in config.eval_datasets:
            continue
        sample.lengths += kept
        if sample.num_pairs is not None and first.num_rows is not None:
            share = len(kept) / account.raw_rows
            most = config.max_pairs_per_source or float("inf")
            sample.num_pairs += min(first.num_rows * share * (1 - config.validation_split), most)
        else:
            sample.num_pairs = None
    return sample


def sample_of_prepared(config: DataConfig, tokenizer: Tokenizer | None) -> Sample:
    folder = config.prepared_folder
    prepared = PreparedData.load(folder) if tokenizer is None else open_prepared(folder, tokenizer, stage=config.stage)
    pairs = prepared.train.select(range(min(NUM_ROWS, len(prepared.train))))
    parts = (pairs[f"{part}_ids"] for part in ("prompt", "chosen", "rejected"))
    return Sample(
        report=prepared.report,
        lengths=[(len(prompt), len(chosen), len(rejected)) for prompt, chosen, rejected in zip(*parts, strict=True)],
        num_pairs=prepared.report.pairs["train"],
        added_tokens=prepared.added_tokens,
    )


def lengths_of(converted: Converted) -> list[Lengths]:
    return [
        (len(pair["prompt_ids"]), len(pair["chosen_ids"]), len(pair["rejected_ids"]))
        for batch in converted.pairs
        for pair in batch.select(["prompt_ids", "chosen_ids", "rejected_ids"]).to_pylist()
    ]


def first_rows(spec: str, config: DataConfig, not_there_yet: Collection[str], notes: list[str]) -> FirstRows:
    """The beginning of a source, or its adapter's examples where there is nothing to read, with a note."""
    adapter_files = tuple(map(Path, config.adapter))
    name = spec.partition("=")[0]
    if coming := coming_output(spec, not_there_yet):
        notes.append(f"stand-in: {coming} is not there yet: the example rows of {name}")
        return example_rows(Source(spec=spec, adapter=get_adapter(name, adapter_files)))
    source = parse_source(spec, adapter_files)
    try:
        stream = source.hub_id is not None and reach_hub()
        columns = config.adapter_options().columns
        opened = open_source(source, columns, pairs=config.stage == "dpo", stream=stream)
        rows = list(islice(opened, NUM_ROWS))
        num_rows = len(rows) if len(rows) < NUM_ROWS else count_rows(source, stream=stream)
        return FirstRows(source=source, rows=rows, num_rows=num_rows)
    except SourceError:
        if source.hub_id is None or reach_hub():
            raise
        notes.append(f"stand-in: {source.hub_id} cannot be fetched: the example rows of {source.adapter.name}")
        return example_rows(source)


def example_rows(source: Source) -> FirstRows:
    """Those of the adapter's examples that are pairs, all of them."""
    examples = source.adapter.examples
    rows = [row for row, given in examples if any(isinstance(item, Preference) for item in given)]
    return FirstRows(source=replace(source, fraction=1.0), rows=list(enumerate(rows)), num_rows=None)


def counts_characters() -> Tokenizer:
    """A tokenizer in the place of one that cannot be had: four characters are a token, and so is a control token."""
    backend = tokenizers.Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(rf"[\s\S]{{1,{CHARACTERS_A_TOKEN}}}"), "isolated")
    backend.add_special_tokens(["<s>", "</s>"])
    return Tokenizer(backend=backend, special_tokens={"bos_token": "<s>", "eos_token": "</s>"})
