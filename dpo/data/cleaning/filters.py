"""What a pair is dropped for, whichever data set it comes from. Pure: each returns a Drop or None."""

__all__ = ["check_encoded", "check_pair"]

from dpo.data.cleaning.phrases import find_refusal
from dpo.data.config import DataConfig
from dpo.data.rendering.encoding import EncodedPair
from dpo.records import Drop, Preference


def check_pair(preference: Preference, config: DataConfig) -> Drop | None:
    """Find what makes a pair unfit to learn from, by its text and scores.

    Reasons, in the order they are looked for: no_rejected, invalid_text, tie, empty_prompt, empty_chosen,
    empty_rejected, identical, below_margin, refusal. Where there is one answer and no score, as in stage sft, those
    that compare two find nothing.
    """
    if preference.rejected is None and config.stage == "dpo":
        return Drop("no_rejected", "there is no worse answer; --stage sft trains on such rows")
    try:
        "".join((*(message.content for message in preference.prompt), *preference.answers)).encode()
    except UnicodeEncodeError as error:
        return Drop("invalid_text", f"no valid Unicode: {error.reason}")
    score = preference.score_chosen
    if score is not None and score == preference.score_rejected and not config.keep_ties:
        return Drop("tie", f"both scores are {score}")
    if not preference.prompt[-1].content.strip():
        return Drop("empty_prompt")
    if not preference.chosen.strip():
        return Drop("empty_chosen")
    if preference.rejected is not None and not preference.rejected.strip():
        return Drop("empty_rejected")
    if preference.chosen == preference.rejected and not config.keep_identical:
        return Drop("identical", "chosen and rejected are the same text")
    margin, bound = preference.score_margin, config.min_score_margin
    if margin is not None and bound is not None and margin < bound:
        return Drop("below_margin", f"the scores differ by {margin:g}, min_score_margin {bound:g}")
    if config.drop_refusals and (phrase := find_refusal(preference.chosen)):
        return Drop("refusal", f"chosen says '{phrase}'")
    return None


def check_encoded(pair: EncodedPair, config: DataConfig) -> Drop | None:
    """Find what makes a pair's ids unfit. Bounds are in tokens and inclusive, and nothing is ever cut to fit.

    Reasons, in the order they are looked for: identical (some templates trim the texts that differ in white space),
    prompt_too_long, target_too_long, too_long.
    """
    if pair.chosen_ids == pair.rejected_ids and not config.keep_identical:
        return Drop("identical", "chosen and rejected are the same tokens")
    prompt = len(pair.prompt_ids)
    target = max(len(pair.chosen_ids), len(pair.rejected_ids))
    if config.max_prompt_length is not None and prompt > config.max_prompt_length:
        return Drop("prompt_too_long", f"{prompt} tokens, max_prompt_length {config.max_prompt_length}")
    if config.max_target_length is not None and target > config.max_target_length:
        return Drop("target_too_long", f"{target} tokens, max_target_length {config.max_target_length}")
    if prompt + target > config.max_length:
        return Drop("too_long", f"{prompt} + {target} tokens, max_length {config.max_length}")
    return None
