"""Parsing of an entry of --datasets into an adapter and a file, a folder of files, or a Hub data set."""

__all__ = ["Source", "check_sources", "coming_output", "parse_source"]

import random
import re
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from dpo.adapters import get_adapter
from dpo.adapters.base import Adapter
from dpo.data.reading.files import FORMATS
from dpo.data.reading.hub import load_hub_dataset
from dpo.errors import SourceError
from dpo.folders import files_fingerprint, find_output, similar_path
from dpo.shipped import find_file

SAMPLING_BLOCK = 100
"""Number of rows in a block. A fraction takes exactly its share of every full block."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One parsed entry of --datasets."""

    spec: str
    """The entry as the user wrote it. It is the source's name in every report."""
    adapter: Adapter
    files: tuple[Path, ...] = ()
    """Local files, sorted. Empty for a Hub data set."""
    hub_id: str | None = None
    split: str | None = None
    fraction: float = 1.0
    """Share of the rows to use, in (0, 1]."""

    def fingerprint(self) -> str:
        """Return a string that changes if the rows may have changed.

        It is made from the sizes and times of local files, or from the fingerprint of the loaded Hub data set.
        """
        if self.hub_id is not None:
            return f"{self.hub_id}:{self.split}:{load_hub_dataset(self.hub_id, self.split)._fingerprint}"
        return files_fingerprint(self.files)

    def is_sampled(self, row_number: int, seed: int) -> bool:
        """Return whether the fraction takes this row. The seed decides which rows of a block are taken."""
        if self.fraction == 1:
            return True
        block, place = divmod(row_number, SAMPLING_BLOCK)
        turn = block * SAMPLING_BLOCK + shuffled_block(f"{seed}:{self.spec}:{block}")[place]
        share = Fraction(str(self.fraction))  # exact, because 100 * 0.29 is 28.999... in floating point
        return int((turn + 1) * share) > int(turn * share)


@lru_cache(maxsize=1)
def shuffled_block(seed: str) -> list[int]:
    return random.Random(seed).sample(range(SAMPLING_BLOCK), SAMPLING_BLOCK)


def parse_source(spec: str, adapter_files: tuple[Path, ...] = ()) -> Source:
    """Parse ADAPTER[=SOURCE][:SPLIT][@FRACTION].

    Args:
        spec: For example "nectar", "ultrafeedback=rows.parquet", "triplets=org/name:train" or "orca_dpo_pairs@0.5".
        adapter_files: The user's adapter files, whose adapters the spec may name.

    Raises:
        AdapterError: if there is no such adapter.
        SourceError: if the file is missing or in an unknown format, or the fraction is not in (0, 1].
    """
    rest, _, fraction_text = spec.rpartition("@")
    fraction = 1.0
    if rest and re.fullmatch(r"[\d.eE+-]+", fraction_text):
        try:
            fraction = float(fraction_text)
        except ValueError:
            fraction = 0.0
        if not 0 < fraction <= 1:
            raise SourceError(f"{spec}: the fraction after '@' is '{fraction_text}', expected a number in (0, 1]")
    else:
        rest = spec
    name, equals, location = rest.partition("=")
    if not equals and ("/" in name or name.endswith(FORMATS)):
        raise SourceError(
            f"{spec}: a file, folder or Hub id needs an adapter that reads it.\n"
            f"  Write ADAPTER={spec}. `dpo adapters` lists the adapters."
        )
    if not equals:
        name, _, split = name.partition(":")
        adapter = get_adapter(name, adapter_files)
        if adapter.hub_id is None:
            raise SourceError(
                f"{spec}: '{name}' is a format, not a data set.\n  Name a file: {name}=path/to/rows.jsonl"
            )
        return Source(
            spec=spec, adapter=adapter, hub_id=adapter.hub_id, split=split or adapter.split, fraction=fraction
        )
    adapter = get_adapter(name, adapter_files)
    if location and (path := find_file(Path(location))).exists():
        return Source(spec=spec, adapter=adapter, files=list_files(path), fraction=fraction)
    folder, _, split = location.rpartition(":")
    if folder and Path(folder).is_dir():
        return Source(spec=spec, adapter=adapter, files=list_files(Path(folder), split), fraction=fraction)
    hub_id, _, split = location.partition(":")
    if re.fullmatch(r"[\w-]+/[\w.-]+", hub_id) and not hub_id.endswith(FORMATS):
        return Source(spec=spec, adapter=adapter, hub_id=hub_id, split=split or adapter.split, fraction=fraction)
    raise SourceError(
        f"{spec}: there is no file or folder '{location}'.{similar_path(location)}\n"
        f"  Expected a file or folder of {', '.join(FORMATS)}, or a Hub id such as {adapter.hub_id or 'org/name'}."
    )


def check_sources(specs: Collection[str], adapter_files: tuple[Path, ...], coming: Collection[str]) -> None:
    """Check that sources can be parsed, and that their files exist, without reading rows.

    Args:
        specs: Entries of --datasets.
        adapter_files: The user's adapter files, whose adapters the specs may name.
        coming: Files and folders that earlier stages will write. Sources in them need not exist yet.

    Raises:
        DPOError: as raised by parse_source.
    """
    for spec in specs:
        if coming_output(spec, coming) is None:
            parse_source(spec, adapter_files)
        else:
            get_adapter(spec.partition("=")[0], adapter_files)


def coming_output(spec: str, coming: Collection[str]) -> str | None:
    """Return the not yet existing output of an earlier stage that a source reads, or None.

    Args:
        spec: Entry of --datasets.
        coming: Files and folders that earlier stages will write.
    """
    output = find_output(spec.partition("=")[2], coming, in_folder=True)
    return None if output is None or Path(output).expanduser().exists() else output


def list_files(path: Path, split: str = "") -> tuple[Path, ...]:
    """Return a file itself, or the files of a folder and its subfolders that have a known format, sorted by name.

    Args:
        path: File or folder.
        split: Text that the path of a file within the folder must contain, for a folder with several splits.

    Raises:
        SourceError: if there is no such file, or the file is in an unknown format.
    """
    below = sorted(f for f in path.rglob("*") if f.suffix in FORMATS and split in str(f.relative_to(path)))
    files = (path,) if path.is_file() else tuple(below)
    if not files:
        named = f" with '{split}' in its name" if split else ""
        raise SourceError(f"{path}: the folder contains no file{named} in one of the formats {', '.join(FORMATS)}.")
    if files[0].suffix not in FORMATS:
        raise SourceError(f"{path}: unknown format '{path.suffix}', expected one of {', '.join(FORMATS)}.")
    return files
