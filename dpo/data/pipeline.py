"""The data pipeline from sources to token ids on disk: read, convert, write, select, split, count.

rows -> Converter, on all cores -> train.arrow, eval.arrow -> select, over all pairs -> train/, eval/

Each dropped row is a Drop, which the data report counts by its reason.
"""

__all__ = ["MADE_BY_PREPARE", "PreparedData", "check_columns_are_read", "code_fingerprint", "open_prepared", "prepare"]

import hashlib
import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

import dpo
from dpo.cache import cache_root, publish
from dpo.data.cleaning.selection import Selection, select
from dpo.data.cleaning.split import split_by_prompt
from dpo.data.config import DataConfig, Stage
from dpo.data.conversion import SCHEMA, TRAITS, batched
from dpo.data.reading.opening import open_source
from dpo.data.reading.source import Source, parse_source
from dpo.data.rendering.tokenization import Tokenizer
from dpo.data.report import DataReport, SourceReport
from dpo.data.workers import Workers
from dpo.errors import ConfigError, DataError
from dpo.records import Preference
from dpo.shipped import find_file

MADE_BY_PREPARE = ("data_report.json", "manifest.json")
"""Files that every preparation contains: the data report, and a manifest of what the pairs were made from."""
BATCH_ROWS = 500
"""Number of rows in a batch that one process converts."""


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """Prepared data in a folder, with its data report and settings."""

    folder: Path
    report: DataReport
    chat_template: str
    """The Jinja text that rendered the pairs. It is saved with the model."""
    end_of_turn: str
    """The token that ends every answer."""
    added_tokens: tuple[str, ...]
    """Control tokens that were added to the tokenizer."""
    config: dict[str, Any]
    """Data flags of the preparation, by name."""

    @cached_property
    def train(self) -> Any:
        """The training pairs (in stage sft: answers), as a datasets.Dataset with the columns of SCHEMA."""
        return self._load("train")

    @cached_property
    def eval(self) -> Any | None:
        """The held-out pairs, as a datasets.Dataset with the columns of SCHEMA; None if there are none."""
        return self._load("eval") if self.report.pairs.get("eval") else None

    def _load(self, split: str) -> Any:
        import datasets

        return datasets.load_from_disk(str(self.folder / split))

    @classmethod
    def load(cls, folder: Path) -> "PreparedData":
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return cls(
            folder=folder,
            report=DataReport.load(folder / "data_report.json"),
            chat_template=manifest["chat_template"],
            end_of_turn=manifest["end_of_turn"],
            added_tokens=tuple(manifest["added_tokens"]),
            config=manifest["config"],
        )


def open_prepared(folder: Path, tokenizer: Tokenizer, *, stage: Stage = "dpo") -> PreparedData:
    """Open prepared data in a folder that the user names.

    Args:
        folder: Folder written by `dpo prepare`.
        tokenizer: The model's tokenizer.
        stage: Stage that the data is for.

    Raises:
        DataError: if the folder contains no prepared data, or data for another stage or another tokenizer.
    """
    if (folder / "manifest.json").is_file() and not (folder / "train").is_dir():
        raise DataError(
            f"--prepared {folder}: the folder contains the pairs as text, without token ids.\n"
            "  Prepare the data with --format arrow, the default, or train on the text: --datasets "
            f"triplets={next(folder.glob('train.*'), folder)}"
        )
    try:
        made_with = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["tokenizer"]
        prepared = PreparedData.load(folder)
        _ = prepared.train, prepared.eval  # load now, so that a damaged folder is an error here
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"--prepared {folder}: {type(error).__name__}: {error}\n"
            f"  Expected a folder written by `dpo prepare --output {folder}`."
        ) from error
    if prepared.report.stage != stage:
        raise DataError(
            f"--prepared {folder}: it was prepared with --stage {prepared.report.stage}, but this is --stage {stage}.\n"
            f"  Pass --stage {prepared.report.stage}, or prepare the data again with --stage {stage}."
        )
    if made_with != tokenizer.fingerprint():
        raise DataError(
            f"--prepared {folder}: its token ids are those of another tokenizer than that of --model_name_or_path.\n"
            "  Prepare the data again with this model."
        )
    return prepared


def prepare(config: DataConfig, tokenizer: Tokenizer, *, progress: bool = True) -> PreparedData:
    """Read, convert, check, encode and write every row of the sources, or return an earlier result from the cache.

    The key in the cache depends on the sources, flags, template, tokenizer and code.

    Args:
        config: The data flags.
        tokenizer: The model's tokenizer.
        progress: Whether to show progress bars.

    Raises:
        DPOError: if a source, the template or the tokenizer cannot be used, or if no pair is kept.
    """
    adapter_files = tuple(map(Path, config.adapter))
    sources = [parse_source(spec, adapter_files) for spec in config.datasets]
    eval_sources = [parse_source(spec, adapter_files) for spec in config.eval_datasets]
    check_columns_are_read(config, sources + eval_sources)
    workers = Workers(config, tokenizer)
    encoder = workers.converter.encoder
    identity = {
        "dpo": dpo.__version__,
        "libraries": {name: version(name) for name in ("datasketch", "jinja2", "markdownify", "tokenizers")},
        "code": code_fingerprint(sources + eval_sources),
        "config": config.model_dump(mode="json", exclude={"num_proc"}),
        "decontaminate": [
            hashlib.sha256(find_file(Path(file).expanduser()).read_bytes()).hexdigest() for file in config.decontaminate
        ],
        "sources": [source.fingerprint() for source in [*sources, *eval_sources]],
        "template": encoder.template.source,
        "rendered": encoder.render_probe(),  # changes with the date for templates that write today's date
        "tokenizer": tokenizer.fingerprint(),
    }

    def build(folder: Path) -> None:
        with workers:
            Preparation(config, workers, folder, progress).run(sources, eval_sources)
        manifest = identity | {
            "chat_template": encoder.template.source,
            "end_of_turn": encoder.end_of_turn,
            "added_tokens": encoder.added_tokens,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False), encoding="utf-8")

    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    return PreparedData.load(publish(cache_root() / "prepared" / key, build))


def check_columns_are_read(config: DataConfig, sources: Iterable[Source]) -> None:
    """Check that a source reads the --column_NAME flags.

    Raises:
        ConfigError: if no source reads them.
    """
    given = config.adapter_options().columns
    if given and not any(source.adapter.columns_are_named for source in sources):
        raise ConfigError(
            f"--column_{next(iter(given))} is only read by the adapter columns, which no source uses.\n"
            "  Leave it out, or name a source as columns=SOURCE."
        )


def code_fingerprint(sources: Iterable[Source]) -> str:
    """Return a hash of the code that determines prepared pairs, including the files of the user's own adapters.

    Modules that these files import are not included.
    """
    package = Path(dpo.__file__).parent
    files = [package / "records.py", *package.glob("adapters/*.py"), *package.glob("data/**/*.py")]
    modules = {sys.modules.get(source.adapter.convert.__module__) for source in sources}
    files += [Path(file) for module in modules if (file := getattr(module, "__file__", None))]
    digest = hashlib.sha256()
    for name, content in sorted({(file.name, file.read_bytes()) for file in files}):
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()


class Preparation:
    """One pass over the sources that fills a folder."""

    def __init__(self, config: DataConfig, workers: Workers, folder: Path, progress: bool) -> None:
        self.config = config
        self.workers = workers
        self.folder = folder
        self.progress = progress
        self.report = DataReport(stage=config.stage)

    def run(self, sources: list[Source], eval_sources: list[Source]) -> None:
        traits = self.write_pairs("train", sources)
        selected = {}
        held_out: set[bytes] = set()
        if eval_sources:
            selected["eval"] = self.select("eval", self.write_pairs("eval", eval_sources), mixes=False)
            held_out = set(selected["eval"].column("prompt_key"))
        selected["train"] = self.select("train", traits, held_out=held_out)
        if held_out and (shared := len(held_out.intersection(selected["train"].column("prompt_key")))):
            self.report.notes.append(
                f"warning: {shared:,} prompts are in both the training sources and the eval sources. "
                f"Pass --drop_leaked_prompts to drop their training {self.report.noun}s."
            )
        self.report.pairs = self.write_splits(selected)
        self.report.check()
        for split, count in self.report.pairs.items():
            if count:
                continue
            if split == "eval" and self.config.validation_split:
                raise DataError(
                    f"--validation_split {self.config.validation_split:g} of {len(selected['train'].kept):,} kept "
                    f"{self.report.noun}s holds out no {self.report.noun}.\n  Raise it, or leave it out."
                )
            rows, purpose = self.report.total().rows, {"train": "training", "eval": "evaluation"}[split]
            raise DataError(
                f"no {self.report.noun} is left for {purpose}. Rows counted: {rows:,}.\n{self.table()}\n"
                "  Correct the rows, or change the flags that cause these reasons. "
                "docs/reference/reasons.md explains each reason."
            )
        self.report.save(self.folder / "data_report.json")

    def table(self) -> str:
        """Return the table of the data report, with one example for each reason."""
        examples = [
            f"  {reason}: {name}, row {examples[0]['row']}: {examples[0]['detail'] or reason}"
            for name, source in self.report.sources.items()
            for reason, examples in source.examples.items()
        ]
        return "\n".join([self.report.table(), *examples])

    def write_pairs(self, split: str, sources: Iterable[Source]) -> pa.Table:
        """Write the pairs that pass the checks of single pairs, count the drops, and return the traits of the pairs."""
        traits: list[pa.RecordBatch] = []
        columns = self.config.adapter_options().columns
        with pa.OSFile(str(self.folder / f"{split}.arrow"), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:
            for source in sources:
                source_report = self.report.sources.setdefault(source.spec, SourceReport())
                rows = batched(open_source(source, columns, pairs=self.config.stage == "dpo"), BATCH_ROWS)
                with tqdm(desc=source.spec, unit=" rows", disable=not self.progress, leave=False) as bar:
                    for converted in self.workers.convert(source, rows):
                        source_report.add(converted.report)
                        for pairs in converted.pairs:
                            writer.write_batch(pairs)
                        traits += converted.traits
                        bar.update(converted.report.raw_rows)
        return pa.Table.from_batches(traits, TRAITS)

    def select(
        self, split: str, traits: pa.Table, *, held_out: Collection[bytes] = (), mixes: bool = True
    ) -> Selection:
        """Decide which of the written pairs are kept, and count kept and dropped pairs."""
        selection = select(traits, self.config, self.reader(split), held_out=held_out, mixes=mixes)
        dropped = traits.select(["source", "row"]).take(pa.array(selection.dropped, pa.int64())).to_pylist()
        for pair, drop in zip(dropped, selection.dropped.values(), strict=True):
            self.report.sources[pair["source"]].drop(drop, pair["row"])
        for source, flags in selection.rows("source", "flags"):
            self.report.sources[source].keep(flags)
        return selection

    def reader(self, split: str) -> Callable[[int], Preference]:
        """Return a function that reads the pair with an index from the file, which it opens at the first call."""
        pairs = cache(lambda: self.written(split).select_columns(["prompt", "chosen", "rejected"]))
        return lambda index: Preference(**pairs()[index])

    def written(self, split: str) -> Any:
        import datasets

        return datasets.Dataset.from_file(str(self.folder / f"{split}.arrow"))

    def write_splits(self, selected: Mapping[str, Selection]) -> dict[str, int]:
        """Save the kept pairs as the data sets train/ and, if pairs are held out, eval/, and count them."""
        import datasets

        datasets.disable_progress_bars()
        places = {split: (split, selection.kept) for split, selection in selected.items()}
        if self.config.validation_split and selected["train"].kept:
            kept = selected["train"].kept
            keys = selected["train"].column("opening_key" if self.config.turns == "all" else "prompt_key")
            train, held_out = split_by_prompt(keys, self.config.validation_split, self.config.seed)
            places = {"train": ("train", [kept[i] for i in train]), "eval": ("train", [kept[i] for i in held_out])}
        for split, (file, indices) in sorted(places.items(), reverse=True):
            self.written(file).select(indices).save_to_disk(str(self.folder / split))
        datasets.enable_progress_bars()
        for written in self.folder.glob("*.arrow"):
            written.unlink()
        return {split: len(indices) for split, (_, indices) in sorted(places.items(), reverse=True)}
