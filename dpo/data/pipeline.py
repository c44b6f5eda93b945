"""From sources to token ids on disk: read, convert, check, encode, filter, write, count.

rows -> adapter -> check_pair -> PairEncoder -> check_encoded -> pairs.arrow -> train/, eval/
         every way out is a Drop, counted by its reason
"""

__all__ = ["MADE_BY_PREPARE", "PreparedData", "open_prepared", "prepare"]

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import ValidationError
from tqdm import tqdm

import dpo
from dpo.adapters.base import Adapter, AdapterOptions, Row
from dpo.cache import cache_root, publish
from dpo.data.config import DataConfig
from dpo.data.encoding import EncodedPair, PairEncoder
from dpo.data.filters import check_encoded, check_pair
from dpo.data.report import DataReport, SourceReport
from dpo.data.source import Source, open_source, parse_source
from dpo.data.split import prompt_key, split_by_prompt
from dpo.data.template import load_template
from dpo.data.tokenization import Tokenizer
from dpo.errors import AdapterError, ConfigError, DataError
from dpo.records import Drop, Preference

Item = TypeVar("Item")

MADE_BY_PREPARE = ("data_report.json", "manifest.json")
"""What every preparation holds beside its pairs: the account, and what the pairs were made from."""
BATCH_ROWS = 1000
"""Pairs that are encoded and written at once."""

SCHEMA = pa.schema(
    {
        "source": pa.string(),
        "row": pa.int64(),
        "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "chosen": pa.string(),
        "rejected": pa.string(),
        "prompt_ids": pa.list_(pa.int32()),
        "chosen_ids": pa.list_(pa.int32()),
        "rejected_ids": pa.list_(pa.int32()),
    }
)


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """A finished preparation."""

    folder: Path
    report: DataReport
    chat_template: str
    """The Jinja text that rendered the pairs, to be saved with the model."""
    end_of_turn: str
    """The token that ends every answer."""
    added_tokens: tuple[str, ...]
    """Control tokens that the tokenizer lacked and was given."""

    @cached_property
    def train(self) -> Any:
        """The pairs to train on, a datasets.Dataset with the columns of SCHEMA."""
        return self._load("train")

    @cached_property
    def eval(self) -> Any | None:
        """The pairs held out; None where there are none."""
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
        )


def open_prepared(folder: Path, tokenizer: Tokenizer) -> PreparedData:
    """A preparation that lies in a folder of the user's.

    Raises:
        DataError: the folder holds none, or its ids are of another tokenizer.
    """
    try:
        made_with = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["tokenizer"]
        prepared = PreparedData.load(folder)
        _ = prepared.train, prepared.eval  # read here, so that a damaged folder shows here
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"--prepared {folder}: {type(error).__name__}: {error}\n"
            f"  Expected what `python -m dpo prepare --output {folder}` makes."
        ) from error
    if made_with != tokenizer.fingerprint():
        raise DataError(
            f"--prepared {folder}: its token ids are of another tokenizer than that of --model_name_or_path.\n"
            "  Prepare it again with this model."
        )
    return prepared


def prepare(config: DataConfig, tokenizer: Tokenizer, *, progress: bool = True) -> PreparedData:
    """Read, convert, check, encode and write every row of the sources, or find it done already.

    The result is kept in the cache under everything that it depends on: sources, flags, template, tokenizer, code.

    Args:
        config: What to read and what to keep.
        tokenizer: The model's tokenizer.
        progress: Whether to show a bar.

    Raises:
        DPOError: a source, the template or the tokenizer cannot be used, or nothing is kept.
    """
    adapter_files = tuple(map(Path, config.adapter))
    sources = [parse_source(spec, adapter_files) for spec in config.datasets]
    eval_sources = [parse_source(spec, adapter_files) for spec in config.eval_datasets]
    given = config.adapter_options().columns
    if given and not any(source.adapter.columns_are_named for source in sources + eval_sources):
        raise ConfigError(f"--column_{next(iter(given))} is read by columns=SOURCE alone, and no source is one.")
    template = load_template(config.template, own=tokenizer.chat_template, special_tokens=tokenizer.special_tokens)
    encoder = PairEncoder(
        template,
        tokenizer,
        special_tokens_in_text=config.special_tokens_in_text,
        add_control_tokens=config.add_control_tokens,
    )
    identity = {
        "dpo": dpo.__version__,
        "libraries": {name: version(name) for name in ("jinja2", "markdownify", "tokenizers")},
        "code": code_fingerprint(sources + eval_sources),
        "config": config.model_dump(mode="json"),
        "sources": [source.fingerprint() for source in [*sources, *eval_sources]],
        "template": template.source,
        "rendered": encoder.render_probe(),  # some templates write today's date
        "tokenizer": tokenizer.fingerprint(),
    }

    def build(folder: Path) -> None:
        preparation = Preparation(config, encoder, folder, progress)
        preparation.run(sources, eval_sources)
        manifest = identity | {
            "chat_template": encoder.template.source,
            "end_of_turn": encoder.end_of_turn,
            "added_tokens": encoder.added_tokens,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False), encoding="utf-8")

    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    return PreparedData.load(publish(cache_root() / "prepared" / key, build))


def code_fingerprint(sources: Iterable[Source]) -> str:
    """Changes with the code that decides what a prepared pair is, and with the files of a user's own adapters.

    What such a file imports is not looked at.
    """
    package = Path(dpo.__file__).parent
    files = [package / "records.py", *package.glob("adapters/*.py"), *package.glob("data/*.py")]
    modules = {sys.modules.get(source.adapter.convert.__module__) for source in sources}
    files += [Path(file) for module in modules if (file := getattr(module, "__file__", None))]
    digest = hashlib.sha256()
    for name, content in sorted({(file.name, file.read_bytes()) for file in files}):
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()


class Preparation:
    """One run over the sources, into one folder."""

    def __init__(self, config: DataConfig, encoder: PairEncoder, folder: Path, progress: bool) -> None:
        self.config = config
        self.encoder = encoder
        self.folder = folder
        self.progress = progress
        self.report = DataReport()

    def run(self, sources: list[Source], eval_sources: list[Source]) -> None:
        train_keys = self.write_pairs("train", sources)
        if eval_sources:
            eval_keys = self.write_pairs("eval", eval_sources)
            if shared := len(set(train_keys) & set(eval_keys)):
                self.report.notes.append(f"warning: {shared:,} prompts stand in both the training and the eval sources")
        self.report.pairs = self.split_pairs(train_keys)
        self.report.check()
        for split, count in self.report.pairs.items():
            if count:
                continue
            if split == "eval" and self.config.validation_split:
                raise DataError(
                    f"--validation_split {self.config.validation_split:g} of {len(train_keys):,} kept pairs holds out "
                    "none.\n  Raise it, or leave it out."
                )
            raise DataError(f"no pair is left to {split} on, of {self.report.total().rows:,} rows:\n{self.table()}")
        self.report.save(self.folder / "data_report.json")

    def table(self) -> str:
        """The account, with one example for each reason."""
        examples = [
            f"  {reason}: {name}, row {examples[0]['row']}: {examples[0]['detail'] or reason}"
            for name, source in self.report.sources.items()
            for reason, examples in source.examples.items()
        ]
        return "\n".join([self.report.table(), *examples])

    def write_pairs(self, split: str, sources: Iterable[Source]) -> list[bytes]:
        """Write what is kept of the sources, and return the prompt key of each pair written."""
        keys: list[bytes] = []
        with pa.OSFile(str(self.folder / f"{split}.arrow"), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:
            for source in sources:
                for pairs in batched(self.kept_pairs(source), BATCH_ROWS):
                    writer.write_batch(pa.RecordBatch.from_pylist([as_record(pair) for pair in pairs], SCHEMA))
                    keys.extend(prompt_key(pair.preference) for pair in pairs)
        return keys

    def split_pairs(self, train_keys: list[bytes]) -> dict[str, int]:
        """Turn the written pairs into the data sets train/ and, where asked for, eval/."""
        import datasets

        datasets.disable_progress_bars()
        splits = {
            split: datasets.Dataset.from_file(str(self.folder / f"{split}.arrow"))
            for split in ("train", "eval")
            if (self.folder / f"{split}.arrow").exists()
        }
        if self.config.validation_split and train_keys:
            pairs = splits["train"]
            train, held_out = split_by_prompt(train_keys, self.config.validation_split, self.config.seed)
            splits = {"train": pairs.select(train), "eval": pairs.select(held_out)}
        for split, dataset in splits.items():
            dataset.save_to_disk(str(self.folder / split))
        datasets.enable_progress_bars()
        for file in self.folder.glob("*.arrow"):
            file.unlink()
        return {split: len(dataset) for split, dataset in splits.items()}

    def kept_pairs(self, source: Source) -> Iterator[EncodedPair]:
        """The pairs of a source that stand every check, in order; everything else is counted."""
        account = self.report.sources.setdefault(source.spec, SourceReport())
        for preferences in batched(self.checked_preferences(source, account), BATCH_ROWS):
            for preference, result in zip(preferences, self.encoder.encode(preferences), strict=True):
                drop = result if isinstance(result, Drop) else check_encoded(result, self.config)
                if drop is not None:
                    account.drop(drop, preference.row)
                else:
                    assert isinstance(result, EncodedPair)
                    account.keep(boundary_shift=result.boundary_shift)
                    yield result

    def checked_preferences(self, source: Source, account: SourceReport) -> Iterator[Preference]:
        options = self.config.adapter_options()
        opened = open_source(source, options.columns)
        rows = tqdm(opened, desc=source.spec, unit=" rows", disable=not self.progress, leave=False)
        for number, row in rows:
            account.raw_rows += 1
            if not source.is_sampled(number, self.config.seed):
                account.enter()
                account.drop(Drop("not_sampled", f"@{source.fraction:g}"), number)
                continue
            candidates = convert_row(row, source.adapter, options)
            account.enter(len(candidates))
            for candidate in candidates:
                drop = candidate if isinstance(candidate, Drop) else check_pair(candidate, self.config)
                if drop is not None:
                    account.drop(drop, number)
                else:
                    assert isinstance(candidate, Preference)
                    yield candidate.model_copy(update={"source": source.spec, "row": number})


def convert_row(row: Row, adapter: Adapter, options: AdapterOptions) -> list[Preference | Drop]:
    """What an adapter makes of a row. Whatever the row holds, the answer is preferences or drops, at least one.

    Raises:
        AdapterError: the adapter gave something else.
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
        return Drop("unknown_role", f"found {first['input']!r:.40}")
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
        "prompt": [message.model_dump() for message in preference.prompt],
        "chosen": preference.chosen,
        "rejected": preference.rejected,
        "prompt_ids": pair.prompt_ids,
        "chosen_ids": pair.chosen_ids,
        "rejected_ids": pair.rejected_ids,
    }


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of that many items, the last one shorter. itertools has it from Python 3.12 on."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch
