"""The data report: how many rows of each source were read, kept, and dropped for which reason."""

__all__ = ["DataReport", "SourceReport"]

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpo.data.config import Stage
from dpo.data.rendering.encoding import FLAGS
from dpo.errors import DataError
from dpo.records import Drop

NUM_EXAMPLES = 3
"""Number of dropped rows that the report names for each reason."""
LENGTH_STEP = 16
"""Lengths are counted in steps of this many tokens, so counts of pairs within a limit are exact for its multiples."""


@dataclass
class SourceReport:
    """The counts of one source.

    A counted row is one pair (in stage sft one answer), or one raw row that gave no pair. If an adapter makes several
    pairs from a raw row (ranked answers, all turns of a conversation), then rows is larger than raw_rows.
    """

    raw_rows: int = 0
    rows: int = 0
    """Counted when a row enters, independently of kept and dropped, so that the sum can be checked."""
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Number of dropped rows by reason."""
    flagged: Counter[str] = field(default_factory=Counter)
    """Number of kept pairs by the names in encoding.FLAGS."""
    lengths: dict[str, Counter[int]] = field(default_factory=dict)
    """For prompt, chosen, rejected and whole: pairs by length in tokens, rounded up to a multiple of LENGTH_STEP.

    In stage sft there is no rejected. Pairs that were dropped after encoding are included, so that other limits can be
    evaluated.
    """
    within_max_length: int = 0
    """Number of encoded pairs within max_length, including those that were dropped for other reasons."""
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The first dropped rows, by reason."""

    def enter(self, count: int = 1) -> None:
        self.rows += count

    def measure(self, lengths: Mapping[str, int], max_length: int) -> None:
        self.within_max_length += lengths["whole"] <= max_length
        for part, length in lengths.items():
            self.lengths.setdefault(part, Counter())[-(-length // LENGTH_STEP) * LENGTH_STEP] += 1

    def keep(self, flags: Iterable[str] = ()) -> None:
        self.kept += 1
        self.flagged.update(flags)

    def drop(self, drop: Drop, row: int) -> None:
        self.dropped[drop.reason] += 1
        examples = self.examples.setdefault(drop.reason, [])
        if len(examples) < NUM_EXAMPLES:
            examples.append({"row": row, "detail": drop.detail[:200]})

    def add(self, other: "SourceReport") -> None:
        """Add the counts of another report."""
        self.raw_rows += other.raw_rows
        self.rows += other.rows
        self.kept += other.kept
        self.dropped += other.dropped
        self.flagged += other.flagged
        self.within_max_length += other.within_max_length
        for part, lengths in other.lengths.items():
            self.lengths[part] = self.lengths.get(part, Counter()) + lengths
        for reason, examples in other.examples.items():
            ours = self.examples.setdefault(reason, [])
            ours += examples[: NUM_EXAMPLES - len(ours)]

    def check(self, name: str) -> None:
        """Check that rows == kept + dropped.

        Raises:
            DataError: if they differ. This is a defect of the toolkit, never of the data.
        """
        if self.rows != self.kept + self.dropped.total():
            raise DataError(
                f"{name}: {self.rows} rows != {self.kept} kept + {self.dropped.total()} dropped.\n"
                "  This is a defect of dpo. Please report it."
            )

    def counts(self) -> dict[str, Any]:
        return {
            "raw_rows": self.raw_rows,
            "rows": self.rows,
            "kept": self.kept,
            "dropped": dict(self.dropped.most_common()),
            "flagged": dict(self.flagged.most_common()),
        }


@dataclass
class DataReport:
    """The counts of all sources, and notes for the user."""

    stage: Stage = "dpo"
    """Stage that the rows are prepared for."""
    sources: dict[str, SourceReport] = field(default_factory=dict)
    """Counts by the name of the source."""
    pairs: dict[str, int] = field(default_factory=dict)
    """Number of kept pairs (in stage sft: answers) by split: train, eval."""
    notes: list[str] = field(default_factory=list)
    """Warnings that follow the table."""

    @property
    def noun(self) -> str:
        """Word for a kept row: pair, or in stage sft answer."""
        return "pair" if self.stage == "dpo" else "answer"

    def total(self) -> SourceReport:
        total = SourceReport()
        for source in self.sources.values():
            total.add(source)
        return total

    def check(self) -> None:
        """Check that the counts add up for each source, in total, and over the splits.

        Raises:
            DataError: if they do not. This is a defect of the toolkit, never of the data.
        """
        for name, source in self.sources.items():
            source.check(name)
        total = self.total()
        total.check("total")
        if total.kept != sum(self.pairs.values()):
            raise DataError(
                f"{total.kept} {self.noun}s kept, but {self.pairs} written.\n"
                "  This is a defect of dpo. Please report it."
            )

    def save(self, file: Path) -> None:
        content = {
            "stage": self.stage,
            "total": self.total().counts(),
            "sources": {name: source.counts() for name, source in self.sources.items()},
            "pairs": self.pairs,
            "notes": self.notes,
            "examples": {name: source.examples for name, source in self.sources.items()},
            "lengths": {name: source.lengths for name, source in self.sources.items()},
            "within_max_length": {name: source.within_max_length for name, source in self.sources.items()},
        }
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> "DataReport":
        content = json.loads(file.read_text(encoding="utf-8"))
        sources = {
            name: SourceReport(
                raw_rows=counts["raw_rows"],
                rows=counts["rows"],
                kept=counts["kept"],
                dropped=Counter(counts["dropped"]),
                flagged=Counter(counts["flagged"]),
                within_max_length=content["within_max_length"][name],
                examples=content["examples"][name],
                lengths={
                    part: Counter({int(length): count for length, count in lengths.items()})
                    for part, lengths in content["lengths"][name].items()
                },
            )
            for name, counts in content["sources"].items()
        }
        return cls(stage=content["stage"], sources=sources, pairs=content["pairs"], notes=content["notes"])

    def table(self) -> str:
        """Return the data report as a table for a terminal, with flags and notes below it."""
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
            yield f"{self.noun}s: " + ", ".join(f"{count:,} {split}" for split, count in self.pairs.items())
        for flag, count in self.total().flagged.most_common():
            yield f"{flag} ({count:,} of the kept {self.noun}s): {FLAGS[flag]}"
        yield from self.notes
