"""The one record that crosses every stage, and the one way to leave early.

raw row -> adapter -> Preference -> filters -> token ids. What cannot go on becomes a Drop with a reason.
"""

__all__ = ["Drop", "Message", "Preference", "Role"]

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Role = Literal["system", "user", "assistant"]


class Drop(Exception):
    """A pair that leaves the pipeline, and why.

    Yielded for one pair of a row, or raised where the whole row is lost; it is counted either way.

    Args:
        reason: A short name that is counted, such as "tie" or "empty_chosen".
        detail: What was found, for the reader of the report. Never counted.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail.encode(errors="backslashreplace").decode()  # what is no valid Unicode cannot be written


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    role: Role
    content: str


class Preference(BaseModel):
    """A prompt with its answer and, unless it comes of an instruction row, a worse answer beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: tuple[Message, ...] = Field(min_length=1)
    """The conversation so far, oldest turn first, ending in a user turn."""
    chosen: str
    """The better answer, or the only one."""
    rejected: str | None = None
    """The worse answer. None in an instruction row, which has one answer alone."""
    score_chosen: float | None = None
    """Higher is better; only comparable with the rejected score of the same pair."""
    score_rejected: float | None = None
    source: str = ""
    """The source as the user named it. Set by the pipeline."""
    row: int = -1
    """The raw row's number within its source, from 0. Set by the pipeline."""

    @property
    def answers(self) -> tuple[str, ...]:
        """The chosen answer and, where there is one, the rejected one."""
        return (self.chosen,) if self.rejected is None else (self.chosen, self.rejected)

    @property
    def score_margin(self) -> float | None:
        """How much better the chosen answer scored; None where a score is missing."""
        if self.score_chosen is None or self.score_rejected is None:
            return None
        return self.score_chosen - self.score_rejected

    @field_validator("prompt")
    @classmethod
    def _ends_with_user(cls, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
        if prompt and prompt[-1].role != "user":
            raise ValueError(f"a prompt ends in a user turn, found '{prompt[-1].role}'")
        return prompt
