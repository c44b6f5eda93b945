"""English phrases by which refusals and boilerplate are recognized."""

__all__ = ["find_boilerplate", "find_refusal"]

import re

UNABLE = r"(?:i (?:can't|cannot|can not|won't|will not|must decline|must refuse)|(?:i am|i'm) (?:unable|not able) to)"
SORRY = r"(?:(?:i'm|i am)(?: \w+)? sorry|(?:my )?apologies|i apologi[sz]e|sorry|unfortunately)"
AS_MODEL = r"as an? (?:ai|artificial intelligence)\b[^,.]{0,40}"
REFUSAL = re.compile(
    rf"\W*(?:(?:{SORRY}|{AS_MODEL})[,.;:!]? (?:but,? |however,? )?)+{UNABLE}\b"
    rf"|\W*{UNABLE} (?:help|assist|provide|fulfil|fulfill|comply)\b"
    r"|\W*i must (?:decline|refuse)\b",
    re.IGNORECASE,
)
"""Matches at the start of an answer: an apology or a disclaimer followed by a refusal, or a refusal alone."""
BOILERPLATE = re.compile(
    r"\bas an? (?:ai|artificial intelligence)(?: language)?(?: model| assistant)?\b"
    r"|\bi(?:'m| am) (?:just |only )?an? (?:ai|artificial intelligence)\b"
    r"|\bmy (?:knowledge|training)(?: data)? (?:cut-?off|ends|only goes)",
    re.IGNORECASE,
)


def find_refusal(answer: str) -> str | None:
    """Return the words of a refusal at the start of an answer, or None."""
    found = REFUSAL.match(straightened(answer))
    return found.group() if found else None


def find_boilerplate(answer: str) -> str | None:
    """Return the words with which an answer describes itself as a model, anywhere in the answer, or None."""
    found = BOILERPLATE.search(straightened(answer))
    return found.group() if found else None


def straightened(text: str) -> str:
    return text.replace("\u2019", "'")
