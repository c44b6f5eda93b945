"""The statistics of prepared data: its data report, and measures of the kept pairs."""

__all__ = ["Finding", "LengthBias", "Repeats", "Statistics", "quantile"]

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from dpo.data.report import DataReport

BOUNDS = (256, 512, 1024, 2048, 4096, 8192, 16384)
"""Values of --max_length, in tokens, for which the number of kept pairs is shown."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A row that the user should check."""

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
    """How well the length of the answers, in tokens, predicts which one is chosen."""

    longer: int = 0
    """Number of pairs whose chosen answer is the longer one."""
    equal: int = 0
    """Number of pairs whose answers have the same length."""
    shorter: int = 0
    """Number of pairs whose chosen answer is the shorter one."""
    differences: Counter[int] = field(default_factory=Counter)
    """Number of pairs by length of chosen minus length of rejected."""

    @property
    def accuracy(self) -> float:
        """Accuracy of the rule that the longer answer is the better one. Answers of equal length count one half."""
        total = self.longer + self.equal + self.shorter
        return (self.longer + self.equal / 2) / total if total else 0.0

    def count(self, chosen: int, rejected: int) -> None:
        self.longer += chosen > rejected
        self.equal += chosen == rejected
        self.shorter += chosen < rejected
        self.differences[chosen - rejected] += 1


@dataclass(kw_only=True)
class Repeats:
    """Number of pairs that repeat an earlier pair."""

    within: int = 0
    """The earlier pair is from the same source."""
    across: int = 0
    """The earlier pair is from another source."""


@dataclass(kw_only=True)
class Statistics:
    """All statistics of the page. Lengths are in tokens. Pairs are the kept ones, training and held-out pairs together.

    In stage sft a pair has one answer, and the statistics that compare two answers are empty.
    """

    report: DataReport
    max_length: int
    pairs: int = 0
    length_bias: LengthBias = field(default_factory=LengthBias)
    score_margins: Counter[float] = field(default_factory=Counter)
    """Number of pairs with both scores, by score of chosen minus score of rejected."""
    turns: Counter[int] = field(default_factory=Counter)
    """Number of pairs by turns in the prompt, without a system message."""
    systems: int = 0
    """Number of pairs with a system message."""
    scripts: Counter[str] = field(default_factory=Counter)
    """Number of pairs by the script of most of their letters."""
    duplicates: Repeats = field(default_factory=Repeats)
    near_duplicates: Repeats | None = None
    """None if they were not searched for."""
    found: Counter[str] = field(default_factory=Counter)
    """Number of kept pairs by the kind of finding."""
    findings: list[Finding] = field(default_factory=list)
    """The first rows of each kind, including dropped rows."""

    @property
    def compares(self) -> bool:
        """Whether a pair has two answers to compare. In stage sft it has one."""
        return self.report.stage == "dpo"

    def measures(self) -> dict[str, tuple[float, int]]:
        """Return the measures that thresholds can limit: name -> (count, total).

        A count includes the rows that were dropped for this reason and the kept pairs in which it was found. The total
        excludes rows that @FRACTION left out.
        """
        total = self.report.total()
        counts = Counter(total.dropped)
        for kind, count in self.found.items():
            counts[kind] += count
        counts["leakage"] += 0  # show it even if it is zero
        rows = total.rows - total.dropped["not_sampled"]
        measures: dict[str, tuple[float, int]] = {name: (count, rows) for name, count in counts.items()}
        if self.compares:
            measures["longer_wins"] = (self.length_bias.accuracy * self.pairs, self.pairs)
        return measures

    def kept_at(self) -> dict[int, int]:
        """Return the number of pairs that --max_length would keep, for each of BOUNDS and for the current value.

        All encoded pairs are counted. The other length limits, and the checks that compare pairs, are not applied.
        """
        whole = self.lengths("whole")
        kept = {bound: sum(count for length, count in whole.items() if length <= bound) for bound in BOUNDS}
        return dict(sorted((kept | {self.max_length: self.report.total().within_max_length}).items()))

    def lengths(self, part: str) -> Counter[int]:
        """Return the number of encoded pairs by length of a part, rounded up as in the data report.

        Args:
            part: prompt, chosen, rejected or whole.
        """
        return self.report.total().lengths.get(part, Counter())

    def as_json(self) -> dict[str, Any]:
        """Return the statistics for JSON, without the list of rows."""
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
    """Return the smallest value that at least this share of the counted values does not exceed; 0 if there are none."""
    wanted = share * counts.total()
    reached = 0
    for value in sorted(counts):
        reached += counts[value]
        if reached >= wanted:
            return value
    return 0
