"""Filters that apply to the pairs of every data set. They are pure functions that return a Drop or None."""

__all__ = ["check_encoded", "check_pair"]

from dpo.data.cleaning.phrases import find_refusal
from dpo.data.config import DataConfig
from dpo.data.rendering.encoding import EncodedPair
from dpo.records import Drop, Preference


def check_pair(preference: Preference, config: DataConfig) -> Drop | None:
    """Drop a pair that is unsuitable for training because of its texts or scores.

    The first reason that applies is returned, in this order: no_rejected, invalid_text, tie, empty_prompt,
    empty_chosen, empty_rejected, identical, below_margin, refusal. In stage sft there is one answer and no score, so
    the reasons that compare two answers do not apply.
    """
    if preference.rejected is None and config.stage == "dpo":
        return Drop("no_rejected", "the row has no rejected answer; --stage sft trains on such rows")
    try:
        "".join((*(message.content for message in preference.prompt), *preference.answers)).encode()
    except UnicodeEncodeError as error:
        return Drop("invalid_text", f"the text is not valid Unicode: {error.reason}")
    score = preference.score_chosen
    if score is not None and score == preference.score_rejected and not config.keep_ties:
        return Drop("tie", f"both scores are {score}")
    if not preference.prompt[-1].content.strip():
        return Drop("empty_prompt", "the last user turn is empty or white space")
    if not preference.chosen.strip():
        return Drop("empty_chosen", "the chosen answer is empty or white space")
    if preference.rejected is not None and not preference.rejected.strip():
        return Drop("empty_rejected", "the rejected answer is empty or white space")
    if preference.chosen == preference.rejected and not config.keep_identical:
        return Drop("identical", "chosen and rejected are the same text")
    margin, bound = preference.score_margin, config.min_score_margin
    if margin is not None and bound is not None and margin < bound:
        return Drop("below_margin", f"the score margin is {margin:g}, below --min_score_margin {bound:g}")
    if config.drop_refusals and (phrase := find_refusal(preference.chosen)):
        return Drop("refusal", f"the chosen answer begins with '{phrase}'")
    return None


def check_encoded(pair: EncodedPair, config: DataConfig) -> Drop | None:
    """Drop a pair because of its token ids. This includes the length filter; nothing is truncated.

    Limits are in tokens and inclusive. The first reason that applies is returned, in this order: identical (some
    templates trim white space, so that different texts give the same tokens), prompt_too_long, target_too_long,
    too_long.
    """
    if pair.chosen_ids == pair.rejected_ids and not config.keep_identical:
        return Drop("identical", "chosen and rejected are the same tokens")
    prompt = len(pair.prompt_ids)
    target = max(len(pair.chosen_ids), len(pair.rejected_ids))
    if config.max_prompt_length is not None and prompt > config.max_prompt_length:
        limit = f"--max_prompt_length {config.max_prompt_length}"
        return Drop("prompt_too_long", f"the prompt has {prompt} tokens, above {limit}")
    if config.max_target_length is not None and target > config.max_target_length:
        limit = f"--max_target_length {config.max_target_length}"
        return Drop("target_too_long", f"the longer answer has {target} tokens, above {limit}")
    if prompt + target > config.max_length:
        limit = f"--max_length {config.max_length}"
        return Drop("too_long", f"prompt and longer answer have {prompt} + {target} tokens, above {limit}")
    return None
