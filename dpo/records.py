"""The record that passes through every stage of the data pipeline, and the exception that removes one from it.

raw row -> adapter -> Preference -> filters -> token ids. A pair that fails a step becomes a Drop with a reason.
"""

__all__ = ["Drop", "Message", "Preference", "Role"]

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Role = Literal["system", "user", "assistant"]


class Drop(Exception):
    """A pair that the pipeline drops, with the reason.

    Yield a Drop for one pair of a row, or raise it to drop the whole row. The data report counts it in both cases.

    Args:
        reason: A short name that the data report counts, such as "tie" or "empty_chosen".
        detail: What was found, for the reader of the data report. Not counted.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail.encode(errors="backslashreplace").decode()  # invalid Unicode cannot be written to a file


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    role: Role
    content: str


class Preference(BaseModel):
    """A prompt with a chosen answer and a rejected one. An instruction row has no rejected answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: tuple[Message, ...] = Field(min_length=1)
    """The conversation so far, oldest turn first. The last one is a user turn."""
    chosen: str
    """The better answer, or the only one in an instruction row."""
    rejected: str | None = None
    """The worse answer. None in an instruction row, which has only one answer."""
    score_chosen: float | None = None
    """Higher is better. Compare it only with the rejected score of the same pair."""
    score_rejected: float | None = None
    source: str = ""
    """The source as the user wrote it. Set by the pipeline."""
    row: int = -1
    """Number of the raw row within its source, from 0. Set by the pipeline."""

    @property
    def answers(self) -> tuple[str, ...]:
        """The chosen answer, followed by the rejected answer if there is one."""
        return (self.chosen,) if self.rejected is None else (self.chosen, self.rejected)

    @property
    def score_margin(self) -> float | None:
        """Score of the chosen answer minus score of the rejected one; None if either is missing."""
        if self.score_chosen is None or self.score_rejected is None:
            return None
        return self.score_chosen - self.score_rejected

    @field_validator("prompt")
    @classmethod
    def _ends_with_user(cls, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
        if prompt and prompt[-1].role != "user":
            raise ValueError(f"a prompt must end in a user turn, found a turn of '{prompt[-1].role}'")
        return prompt
