"""Thresholds on the measures of prepared data, such as tie>5% or leakage>0, so that an inspection can fail a CI job."""

__all__ = ["Threshold", "check_stage", "parse_threshold", "reasons_of"]

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from dpo.adapters.base import Adapter
from dpo.data.config import Stage
from dpo.errors import ConfigError, unknown_name
from dpo.records import Drop

FINDS = (
    *("boilerplate", "boundary_shift", "double_bos", "inverted", "leakage", "literal_in_text", "longer_wins"),
    *("conflict", "duplicate", "identical", "near_duplicate", "refusal", "tie"),
)
"""Measures that are found in kept pairs."""
REASONS = (
    *("above_prompt_limit", "above_source_limit", "above_weight", "below_margin", "contaminated", "empty_chosen"),
    *("empty_prompt", "empty_rejected", "invalid_text", "leaked_prompt", "length_balance", "low_score_ratio"),
    *("malformed_prompt", "malformed_row", "no_answer", "no_end_token", "no_pair", "no_rejected", "not_sampled"),
    *("prompt_not_prefix", "prompt_not_user", "prompt_too_long", "prompts_differ", "special_token_in_text"),
    *("target_too_long", "template_refused", "too_few_answers", "too_long", "tools", "unknown_role"),
)
"""Other drop reasons of the package's own code. The reasons of an adapter are taken from its examples."""
COMPARING = (
    *("below_margin", "conflict", "empty_rejected", "identical", "inverted", "length_balance", "longer_wins"),
    *("no_rejected", "tie"),
)
"""Measures that need two answers. They are never found in stage sft."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A measure and the limit that it must not exceed."""

    text: str
    measure: str
    limit: Fraction
    is_share: bool
    """Whether the limit is a share in [0, 1] or a count."""

    def failure(self, measures: Mapping[str, tuple[float, int]]) -> str | None:
        """Return a message if the measure is above the limit, otherwise None. A missing measure counts as 0.

        Args:
            measures: name -> (count, total), as returned by Statistics.measures.
        """
        count, total = measures.get(self.measure, (0, 0))
        bound = self.limit * total if self.is_share else self.limit
        if count <= bound:
            return None
        return f"{self.text}: {count:,.10g} of {total:,}, {count / total:.2%}"


def reasons_of(adapters: Iterable[Adapter]) -> set[str]:
    """Return the drop reasons in the examples of adapters."""
    outcomes = [outcome for adapter in adapters for _, expected in adapter.examples for outcome in expected]
    return {outcome.reason for outcome in outcomes if isinstance(outcome, Drop)}


def parse_threshold(text: str, more_measures: Collection[str] = ()) -> Threshold:
    """Parse NAME>NUMBER or NAME>NUMBER%.

    Args:
        text: The threshold as the user wrote it.
        more_measures: Additional reasons, from adapters.

    Raises:
        ConfigError: if the text has another form, or the measure is unknown.
    """
    found = re.fullmatch(r"(\w+)>(\d+(?:\.\d+)?)(%?)", text.replace(" ", ""))
    if not found:
        raise ConfigError(f"--fail-on {text}: expected NAME>NUMBER or NAME>NUMBER%, such as tie>5% or leakage>0")
    measure, number, percent = found.groups()
    known = {*FINDS, *REASONS, *more_measures}
    if measure not in known:
        raise ConfigError(f"--fail-on {text}: {unknown_name('measure', measure, known)}")
    limit = Fraction(number) / (100 if percent else 1)
    return Threshold(text=text, measure=measure, limit=limit, is_share=bool(percent))


def check_stage(thresholds: Iterable[Threshold], stage: Stage) -> None:
    """Check that every threshold can be exceeded in the stage.

    Raises:
        ConfigError: if a threshold needs two answers and the stage is sft.
    """
    for threshold in thresholds if stage == "sft" else ():
        if threshold.measure in COMPARING:
            raise ConfigError(
                f"--fail-on {threshold.text}: {threshold.measure} is about the two answers of a pair, but --stage sft "
                "uses only one.\n  Leave it out."
            )
