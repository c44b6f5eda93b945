"""A sample of the first rows of each source, for a dry run. It reads few rows and writes nothing."""

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
"""Number of rows to read from each source."""
CHARACTERS_A_TOKEN = 4
"""Approximate number of characters in a token, for English text and a vocabulary of 30,000 tokens or more."""

Lengths = tuple[int, int, int]
"""Number of tokens of prompt, chosen and rejected; 0 for rejected in an instruction row."""


@dataclass(kw_only=True)
class Sample:
    """The result of converting the first rows of a run's sources."""

    report: DataReport = field(default_factory=DataReport)
    lengths: list[Lengths] = field(default_factory=list)
    """Lengths of each kept training pair."""
    num_pairs: float | None = 0
    """Estimated number of training pairs from all rows; None if the number of rows is unknown."""
    added_tokens: tuple[str, ...] = ()
    """Control tokens that would be added to the tokenizer; empty if the tokenizer is unknown."""
    notes: list[str] = field(default_factory=list)
    """One line for each source that cannot be read and is replaced by example rows."""


@dataclass(frozen=True, kw_only=True)
class FirstRows:
    """The first rows of a source."""

    source: Source
    rows: list[tuple[int, Any]]
    """The rows with their numbers."""
    num_rows: int | None
    """Number of rows in the whole source; None if it is unknown."""


def read_sample(config: DataConfig, tokenizer: Tokenizer | None, *, not_there_yet: Collection[str] = ()) -> Sample:
    """Convert, check and encode the first rows of each source. Checks that compare pairs are left out.

    Args:
        config: The data flags.
        tokenizer: The model's tokenizer. If it is None, tokens are estimated from the number of characters.
        not_there_yet: Files and folders that earlier stages will write before the run.

    Raises:
        DPOError: if an available source, the template or the tokenizer cannot be used.
    """
    if config.prepared is not None:
        return sample_of_prepared(config, tokenizer)
    sample = Sample(report=DataReport(stage=config.stage))
    is_known = tokenizer is not None
    if tokenizer is None:
        tokenizer = counts_characters()
        # Assume that the model's tokenizer has all the template's control tokens. Here, answers of equal length have
        # equal ids, so they must not be dropped as identical.
        template = "chatml" if config.template == "model" else config.template
        config = config.model_copy(update={"template": template, "add_control_tokens": True, "keep_identical": True})
    converter = Converter(config, tokenizer)
    if is_known:
        sample.added_tokens = tuple(converter.encoder.added_tokens)
    for spec in (*config.datasets, *config.eval_datasets):
        first = first_rows(spec, config, not_there_yet, sample.notes)
        converted = converter.convert(first.source, first.rows)
        kept = lengths_of(converted)
        report = converted.report
        report.kept = len(kept)
        report.flagged.update(
            flag for batch in converted.pairs for flags in batch["flags"].to_pylist() for flag in flags
        )
        sample.report.sources[spec] = report
        if spec in config.eval_datasets:
            continue
        sample.lengths += kept
        if sample.num_pairs is not None and first.num_rows is not None:
            share = len(kept) / report.raw_rows
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
    """Read the first rows of a source, or use its adapter's examples if it cannot be read, and add a note."""
    adapter_files = tuple(map(Path, config.adapter))
    name = spec.partition("=")[0]
    if coming := coming_output(spec, not_there_yet):
        notes.append(f"stand-in: {coming} does not exist yet. The example rows of {name} are used instead.")
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
        notes.append(
            f"stand-in: {source.hub_id} cannot be loaded. The example rows of {source.adapter.name} are used instead."
        )
        return example_rows(source)


def example_rows(source: Source) -> FirstRows:
    """Return all rows of the adapter's examples that give a preference."""
    examples = source.adapter.examples
    rows = [row for row, given in examples if any(isinstance(item, Preference) for item in given)]
    return FirstRows(source=replace(source, fraction=1.0), rows=list(enumerate(rows)), num_rows=None)


def counts_characters() -> Tokenizer:
    """Create a tokenizer for estimates: four characters are one token, and each control token is one token."""
    backend = tokenizers.Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(rf"[\s\S]{{1,{CHARACTERS_A_TOKEN}}}"), "isolated")
    backend.add_special_tokens(["<s>", "</s>"])
    return Tokenizer(backend=backend, special_tokens={"bos_token": "<s>", "eos_token": "</s>"})
