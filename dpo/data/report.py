"""The account of every row: read, kept, or dropped for a named reason."""

__all__ = ["DataReport", "SourceReport"]

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpo.errors import DataError
from dpo.records import Drop

NUM_EXAMPLES = 3
"""Dropped rows of each reason that the report names."""


@dataclass
class SourceReport:
    """The account of one source.

    A row of the account is one pair, or one raw row that gave none. For an adapter that makes several pairs of a
    raw row (ranked answers), rows is larger than raw_rows.
    """

    raw_rows: int = 0
    rows: int = 0
    """Counted on entry, apart from what becomes of them."""
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    boundary_shift: int = 0
    """Kept pairs of which a token would have merged across the end of the prompt."""
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Per reason, the first rows that were dropped for it."""

    def enter(self, count: int = 1) -> None:
        self.rows += count

    def keep(self, *, boundary_shift: bool = False) -> None:
        self.kept += 1
        self.boundary_shift += boundary_shift

    def drop(self, drop: Drop, row: int) -> None:
        self.dropped[drop.reason] += 1
        examples = self.examples.setdefault(drop.reason, [])
        if len(examples) < NUM_EXAMPLES:
            examples.append({"row": row, "detail": drop.detail[:200]})

    def check(self, name: str) -> None:
        """Refuse an account that does not add up.

        Raises:
            DataError: rows != kept + dropped. This is a defect of the toolkit, never of the data.
        """
        if self.rows != self.kept + self.dropped.total():
            raise DataError(f"{name}: {self.rows} rows != {self.kept} kept + {self.dropped.total()} dropped")

    def counts(self) -> dict[str, Any]:
        return {
            "raw_rows": self.raw_rows,
            "rows": self.rows,
            "kept": self.kept,
            "dropped": dict(self.dropped.most_common()),
            "boundary_shift": self.boundary_shift,
        }


@dataclass
class DataReport:
    """The account of a whole preparation."""

    sources: dict[str, SourceReport] = field(default_factory=dict)
    pairs: dict[str, int] = field(default_factory=dict)
    """Kept pairs by where they went: train, eval."""
    notes: list[str] = field(default_factory=list)
    """What a reader should know beside the counts."""

    def total(self) -> SourceReport:
        total = SourceReport()
        for source in self.sources.values():
            total.raw_rows += source.raw_rows
            total.rows += source.rows
            total.kept += source.kept
            total.dropped += source.dropped
            total.boundary_shift += source.boundary_shift
        return total

    def check(self) -> None:
        """Refuse an account that does not add up, per source, in all, or over the splits."""
        for name, source in self.sources.items():
            source.check(name)
        total = self.total()
        total.check("total")
        if total.kept != sum(self.pairs.values()):
            raise DataError(f"{total.kept} pairs kept, but {self.pairs} written")

    def save(self, file: Path) -> None:
        content = {
            "total": self.total().counts(),
            "sources": {name: source.counts() for name, source in self.sources.items()},
            "pairs": self.pairs,
            "notes": self.notes,
            "examples": {name: source.examples for name, source in self.sources.items()},
        }
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> "DataReport":
        content = json.loads(file.read_text(encoding="utf-8"))
        sources = {
            name: SourceReport(**counts | {"dropped": Counter(counts["dropped"])}, examples=content["examples"][name])
            for name, counts in content["sources"].items()
        }
        return cls(sources=sources, pairs=content["pairs"], notes=content["notes"])

    def table(self) -> str:
        """The account as lines for a terminal."""
        lines = [("source", "rows", "kept", "dropped")]
        for name, source in [*self.sources.items(), ("total", self.total())]:
            reasons = ", ".join(f"{count} {reason}" for reason, count in source.dropped.most_common())
            lines.append((name, f"{source.rows:,}", f"{source.kept:,}", reasons or "none"))
        widths = [max(len(line[i]) for line in lines) for i in range(3)]
        table = [
            f"{name:<{widths[0]}}  {rows:>{widths[1]}}  {kept:>{widths[2]}}  {dropped}"
            for name, rows, kept, dropped in lines
        ]
        return "\n".join([table[0], "-" * max(map(len, table)), *table[1:], *self._footer()])

    def _footer(self) -> Iterable[str]:
        if self.pairs:
            yield "pairs: " + ", ".join(f"{count:,} {split}" for split, count in self.pairs.items())
        if shifted := self.total().boundary_shift:
            yield f"boundary_shift: {shifted:,} kept pairs whose prompt would have merged with their answer"
        yield from self.notes
