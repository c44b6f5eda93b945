"""The figures of a preparation: its account, and what was seen of the pairs it kept."""

__all__ = ["Finding", "LengthBias", "Repeats", "Statistics", "quantile"]

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from dpo.data.report import DataReport

BOUNDS = (256, 512, 1024, 2048, 4096, 8192, 16384)
"""Lengths in tokens for which the report says what --max_length would keep."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A row that a reader should look at."""

    kind: str
    source: str
    row: int
    split: str
    """train, eval, or dropped."""
    detail: str = ""
    prompt_tokens: int | None = None
    chosen_tokens: int | None = None
    rejected_tokens: int | None = None
    score_margin: float | None = None


@dataclass(kw_only=True)
class LengthBias:
    """How much the length of its answers, in tokens, tells of which one a pair prefers."""

    longer: int = 0
    """Pairs whose chosen answer is the longer one."""
    equal: int = 0
    shorter: int = 0
    differences: Counter[int] = field(default_factory=Counter)
    """Pairs by length of chosen less that of rejected."""

    @property
    def accuracy(self) -> float:
        """Of a judge that takes the longer answer for the better one, and tosses a coin where both are equal."""
        total = self.longer + self.equal + self.shorter
        return (self.longer + self.equal / 2) / total if total else 0.0

    def count(self, chosen: int, rejected: int) -> None:
        self.longer += chosen > rejected
        self.equal += chosen == rejected
        self.shorter += chosen < rejected
        self.differences[chosen - rejected] += 1


@dataclass(kw_only=True)
class Repeats:
    """Pairs that repeat an earlier one."""

    within: int = 0
    """Of the same source."""
    across: int = 0
    """Of another source."""


@dataclass(kw_only=True)
class Statistics:
    """Everything the page shows. Lengths are in tokens; pairs are the kept ones, training and evaluation together.

    In stage sft a pair has one answer, and what compares two is empty.
    """

    report: DataReport
    max_length: int
    pairs: int = 0
    length_bias: LengthBias = field(default_factory=LengthBias)
    score_margins: Counter[float] = field(default_factory=Counter)
    """Pairs that have both scores, by the difference."""
    turns: Counter[int] = field(default_factory=Counter)
    """Pairs by messages in the prompt, a system message apart."""
    systems: int = 0
    """Pairs with a system message."""
    scripts: Counter[str] = field(default_factory=Counter)
    """Pairs by the script that most of their letters are of."""
    duplicates: Repeats = field(default_factory=Repeats)
    near_duplicates: Repeats | None = None
    """None where they were not looked for."""
    found: Counter[str] = field(default_factory=Counter)
    """Kept pairs by what was found in them."""
    findings: list[Finding] = field(default_factory=list)
    """The first rows of each kind, dropped ones among them."""

    @property
    def compares(self) -> bool:
        """Whether there are two answers to compare; in stage sft there is one."""
        return self.report.stage == "dpo"

    def measures(self) -> dict[str, tuple[float, int]]:
        """What a threshold can be set on: name -> (count, of how many).

        A count has both the rows that were dropped for it and the pairs in which it still is. Rows that @FRACTION left
        out were not looked at.
        """
        total = self.report.total()
        counts = Counter(total.dropped)
        for kind, count in self.found.items():
            counts[kind] += count
        counts["leakage"] += 0  # shown also where there is none
        rows = total.rows - total.dropped["not_sampled"]
        measures: dict[str, tuple[float, int]] = {name: (count, rows) for name, count in counts.items()}
        if self.compares:
            measures["longer_wins"] = (self.length_bias.accuracy * self.pairs, self.pairs)
        return measures

    def kept_at(self) -> dict[int, int]:
        """Pairs that --max_length would keep, at each of BOUNDS and at the one in force.

        Counted over all that were encoded. Other bounds and checks over all pairs are not applied.
        """
        whole = self.lengths("whole")
        kept = {bound: sum(count for length, count in whole.items() if length <= bound) for bound in BOUNDS}
        return dict(sorted((kept | {self.max_length: self.report.total().within_max_length}).items()))

    def lengths(self, part: str) -> Counter[int]:
        """Encoded pairs by the length of prompt, chosen, rejected or whole, rounded up as the report does."""
        return self.report.total().lengths.get(part, Counter())

    def as_json(self) -> dict[str, Any]:
        """The figures, without the rows."""
        return {
            "stage": self.report.stage,
            "account": {"total": self.report.total().counts(), "pairs": self.report.pairs}
            | {"sources": {name: source.counts() for name, source in self.report.sources.items()}},
            "pairs": self.pairs,
            "max_length": self.max_length,
            "kept_at": self.kept_at(),
            "length_bias": {
                "longer": self.length_bias.longer,
                "equal": self.length_bias.equal,
                "shorter": self.length_bias.shorter,
                "accuracy": self.length_bias.accuracy,
            }
            if self.compares
            else None,
            "scored": self.score_margins.total(),
            "turns": dict(sorted(self.turns.items())),
            "systems": self.systems,
            "scripts": dict(self.scripts.most_common()),
            "duplicates": asdict(self.duplicates),
            "near_duplicates": None if self.near_duplicates is None else asdict(self.near_duplicates),
            "measures": self.measures(),
        }


def quantile(counts: Counter[int], share: float) -> int:
    """The smallest value that at least this share of what was counted does not exceed; 0 of nothing."""
    wanted = share * counts.total()
    reached = 0
    for value in sorted(counts):
        reached += counts[value]
        if reached >= wanted:
            return value
    return 0
