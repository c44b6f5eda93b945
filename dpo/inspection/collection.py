"""Collection of statistics: first over each pair of the prepared data, then between pairs."""

__all__ = ["inspect_pairs"]

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from heapq import nlargest
from typing import Any

from dpo.data.cleaning.duplicates import PairKey, find_conflicts, find_duplicates
from dpo.data.cleaning.near_duplicates import find_near_duplicates, signature
from dpo.data.cleaning.phrases import find_boilerplate, find_refusal
from dpo.data.cleaning.split import prompt_key, text_key
from dpo.data.pipeline import PreparedData
from dpo.data.rendering.encoding import FLAGS
from dpo.data.report import DataReport
from dpo.inspection.statistics import Finding, Repeats, Statistics
from dpo.records import Preference

NUM_FINDINGS = 100
"""Largest number of listed rows of one kind."""
NUM_EXTREMES = 20
"""Number of listed rows with the longest pairs, and with the largest length differences."""
NUM_LETTERS = 500
"""Number of characters from which the script of a pair is determined."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Data of a pair that stays in memory during the inspection."""

    split: str
    source: str
    row: int
    key: PairKey
    prompt_tokens: int
    chosen_tokens: int
    rejected_tokens: int | None
    """None if there is no rejected answer."""
    score_margin: float | None
    signature: bytes

    def finding(self, kind: str, detail: str) -> Finding:
        return Finding(
            kind=kind,
            source=self.source,
            row=self.row,
            split=self.split,
            detail=detail,
            prompt_tokens=self.prompt_tokens,
            chosen_tokens=self.chosen_tokens,
            rejected_tokens=self.rejected_tokens,
            score_margin=self.score_margin,
        )


def inspect_pairs(prepared: PreparedData, *, near: bool = True) -> Statistics:
    """Collect statistics over every pair of prepared data.

    Args:
        prepared: The prepared data.
        near: Whether to search for near duplicates, which takes about 1 ms and 6 KiB of memory for each pair.
    """
    statistics = Statistics(report=prepared.report, max_length=prepared.config["max_length"])
    datasets = {"train": prepared.train} | ({"eval": prepared.eval} if prepared.eval is not None else {})
    pairs = []
    for split, dataset in datasets.items():
        for record in dataset:
            pair, preference = read_pair(record, split, near)
            pairs.append(pair)
            count_pair(statistics, pair, preference, record["flags"])
    compare_pairs(statistics, pairs, datasets, near)
    name_extremes(statistics, pairs)
    statistics.findings += dropped_rows(prepared.report)
    return statistics


def read_pair(record: dict[str, Any], split: str, near: bool) -> tuple[Pair, Preference]:
    fields = ("prompt", "chosen", "rejected", "score_chosen", "score_rejected", "source", "row")
    preference = Preference(**{name: record[name] for name in fields})
    pair = Pair(
        split=split,
        source=preference.source,
        row=preference.row,
        key=(prompt_key(preference), text_key(preference.chosen), text_key(preference.rejected or "")),
        prompt_tokens=len(record["prompt_ids"]),
        chosen_tokens=len(record["chosen_ids"]),
        rejected_tokens=None if preference.rejected is None else len(record["rejected_ids"]),
        score_margin=preference.score_margin,
        signature=signature(preference) if near else b"",
    )
    return pair, preference


def count_pair(statistics: Statistics, pair: Pair, preference: Preference, flags: list[str]) -> None:
    """Count the properties of a single pair."""
    statistics.pairs += 1
    if pair.rejected_tokens is not None:
        statistics.length_bias.count(pair.chosen_tokens, pair.rejected_tokens)
    for flag in flags:
        find(statistics, flag, pair, FLAGS[flag])
    if pair.score_margin is not None:
        statistics.score_margins[pair.score_margin] += 1
        if pair.score_margin < 0:
            find(statistics, "inverted", pair, "the rejected answer has the higher score")
        elif pair.score_margin == 0:
            find(statistics, "tie", pair, "the two scores are equal")
    if preference.chosen == preference.rejected:
        find(statistics, "identical", pair, "chosen and rejected are the same text")
    has_system = preference.prompt[0].role == "system"
    statistics.turns[len(preference.prompt) - has_system] += 1
    statistics.systems += has_system
    statistics.scripts[main_script(preference.prompt[-1].content + preference.chosen)] += 1
    if phrase := find_refusal(preference.chosen):
        find(statistics, "refusal", pair, f"the chosen answer begins with '{phrase}'")
    if phrase := find_boilerplate(preference.chosen):
        find(statistics, "boilerplate", pair, f"the chosen answer contains '{phrase}'")


def compare_pairs(statistics: Statistics, pairs: list[Pair], datasets: dict[str, Any], near: bool) -> None:
    """Count properties that need other pairs. A prompt in both splits counts as leakage, not as a duplicate."""
    held_out = {pair.key[0] for pair in pairs if pair.split == "eval"}
    for pair in pairs:
        if pair.split == "train" and pair.key[0] in held_out:
            find(statistics, "leakage", pair, "the prompt is also among the held-out pairs")
    statistics.near_duplicates = Repeats() if near else None
    for split, dataset in datasets.items():
        compare_split(statistics, [pair for pair in pairs if pair.split == split], dataset)


def compare_split(statistics: Statistics, pairs: list[Pair], dataset: Any) -> None:
    keys = [pair.key for pair in pairs]
    repeated = set()
    for i, original in find_duplicates(keys):
        repeated.add(i)
        count_repeat(statistics, statistics.duplicates, "duplicate", "repeats", pairs[i], pairs[original])
    for i, other in find_conflicts(keys):
        find(statistics, "conflict", pairs[i], f"swaps the chosen and rejected answer of {name(pairs[other])}")
    if statistics.near_duplicates is None:
        return
    places = [i for i in range(len(pairs)) if i not in repeated]

    def read(place: int) -> Preference:
        record = dataset[places[place]]
        return Preference(**{field: record[field] for field in ("prompt", "chosen", "rejected")})

    for place, earlier in find_near_duplicates([pairs[i].signature for i in places], read):
        pair, first = pairs[places[place]], pairs[places[earlier]]
        count_repeat(statistics, statistics.near_duplicates, "near_duplicate", "nearly repeats", pair, first)


def name_extremes(statistics: Statistics, pairs: list[Pair]) -> None:
    """List the longest pairs, and the pairs with the largest length differences. They are not counted as findings."""
    sizes: dict[str, Callable[[Pair], int]] = {
        "longest": lambda pair: pair.prompt_tokens + max(pair.chosen_tokens, pair.rejected_tokens or 0)
    }
    if statistics.compares:
        sizes["length_difference"] = lambda pair: abs(pair.chosen_tokens - (pair.rejected_tokens or 0))
    for kind, size in sizes.items():
        for pair in nlargest(NUM_EXTREMES, pairs, key=size):
            statistics.findings.append(pair.finding(kind, f"{size(pair):,} tokens"))


def count_repeat(statistics: Statistics, repeats: Repeats, kind: str, verb: str, pair: Pair, original: Pair) -> None:
    if pair.source == original.source:
        repeats.within += 1
    else:
        repeats.across += 1
    find(statistics, kind, pair, f"{verb} {name(original)}")


def find(statistics: Statistics, kind: str, pair: Pair, detail: str) -> None:
    statistics.found[kind] += 1
    if statistics.found[kind] <= NUM_FINDINGS:
        statistics.findings.append(pair.finding(kind, detail))


def name(pair: Pair) -> str:
    return f"{pair.source}, row {pair.row}"


def dropped_rows(report: DataReport) -> Iterator[Finding]:
    for source_name, source in report.sources.items():
        for reason, examples in source.examples.items():
            for example in examples:
                yield Finding(
                    kind=reason, source=source_name, row=example["row"], split="dropped", detail=example["detail"]
                )


def main_script(text: str) -> str:
    """Return the script of most letters at the start of a text, by its Unicode name, such as Latin, Cjk or Cyrillic."""
    found = Counter(script for letter in text[:NUM_LETTERS] if (script := script_of(letter)))
    return found.most_common(1)[0][0] if found else "none"


@cache
def script_of(letter: str) -> str | None:
    """Return the first word of a letter's Unicode name, or None if the character is not a letter."""
    if not letter.isalpha():
        return None
    return unicodedata.name(letter, "OTHER").split()[0].capitalize()
