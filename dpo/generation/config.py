"""What a user may ask of generation: the flags of python -m dpo generate, beside those of the data."""

__all__ = ["DATA_FLAGS", "GenerationConfig"]

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dpo.errors import ConfigError
from dpo.flags import read_fields
from dpo.generation.candidates import Pick

DATA_FLAGS = (
    "datasets",
    "adapter",
    "template",
    "column_prompt",
    "column_chosen",
    "column_rejected",
    "column_system",
    "min_score_ratio",
    "special_tokens_in_text",
    "seed",
)
"""The data's flags that generation reads."""
TOP_P = 0.95


class GenerationConfig(BaseModel):
    """What the model is asked for, and what becomes of its answers. Lengths are in tokens and inclusive."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str
    model_revision: str | None = Field(
        default=None,
        description="Branch, tag or commit of a Hub model or adapter; beside an adapter's folder, of its base.",
    )
    trust_remote_code: bool = Field(default=False, description="For models and tokenizers with code of their own.")
    pair: Literal["given", "best_worst"] = Field(
        default="given",
        description="given: the source's answer is chosen, one of the model's rejected. best_worst: of the model's "
        "answers, the one that --reward_model scores highest is chosen, the lowest rejected.",
    )
    num_candidates: int = Field(default=1, gt=0, description="Answers to draw for each prompt.")
    pick: Pick | None = Field(
        default=None,
        description="Which of several candidates --pair given rejects, length in characters; scorer: the one that "
        "--reward_model scores lowest. Default: random.",
    )
    reward_model: str | None = Field(
        default=None,
        description="Folder or Hub id of a sequence classifier with one label and a chat template of its own.",
    )
    include_given: bool = Field(
        default=False, description="Let the source's answer take part in --pair best_worst as one more candidate."
    )
    temperature: float = Field(default=0.8, ge=0, description="0 takes the likeliest token each time.")
    top_p: float = Field(
        default=TOP_P, gt=0, le=1, description="Share of the probability to draw from, the likeliest tokens first."
    )
    max_new_tokens: int = Field(default=512, gt=0, description="Longest answer, end token included.")
    max_prompt_length: int | None = Field(
        default=None, gt=0, description="Longest prompt. Default: what the model reads, less --max_new_tokens."
    )
    keep_unfinished: bool = Field(
        default=False, description="Take answers that --max_new_tokens cut off. Without it they are refused."
    )
    batch_size: int = Field(default=8, gt=0, description="Prompts to answer at once, with all their candidates.")
    limit: int | None = Field(default=None, gt=0, description="Most rows to read of each source.")
    backend: Literal["transformers", "vllm"] = Field(default="transformers", description="What runs the model.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Of the weights; auto is bfloat16 on a GPU that computes in it, float32 elsewhere."
    )

    @classmethod
    def from_flags(cls, values: Mapping[str, Any]) -> "GenerationConfig":
        """Read the values of flags.

        Raises:
            ConfigError: a value is out of its range, or flags contradict each other.
        """
        config = read_fields(cls, values)
        config.check()
        return config

    @property
    def reads_given(self) -> bool:
        """Whether the source's own answer can end up in a pair."""
        return self.pair == "given" or self.include_given

    def check(self) -> None:
        """Refuse flags that contradict each other, or that nothing would read.

        Raises:
            ConfigError: naming them.
        """
        if self.pair == "best_worst":
            self.check_best_worst()
        else:
            self.check_given()
        if self.temperature == 0 and self.num_candidates > 1:
            raise ConfigError(
                f"--num_candidates {self.num_candidates}: at --temperature 0 all candidates are the same.\n"
                "  Raise --temperature, or leave --num_candidates out."
            )
        if self.temperature == 0 and self.top_p != TOP_P:
            raise ConfigError(f"--top_p {self.top_p:g} is not read at --temperature 0.\n  Leave it out.")

    def check_best_worst(self) -> None:
        if self.reward_model is None:
            raise ConfigError("--pair best_worst ranks the model's answers.\n  Pass --reward_model to rank them by.")
        if self.pick is not None:
            raise ConfigError(
                f"--pick {self.pick} is read by --pair given alone; best_worst rejects the lowest score.\n"
                "  Leave out one of the two."
            )
        if self.num_candidates + self.include_given < 2:
            raise ConfigError(
                "--pair best_worst needs two answers a prompt.\n"
                "  Pass --num_candidates 2 or more, or --include_given to rank the source's answer too."
            )

    def check_given(self) -> None:
        if self.include_given:
            raise ConfigError(
                "--include_given is read by --pair best_worst alone; with --pair given the source's answer is the "
                "chosen one.\n  Leave it out."
            )
        if self.pick is not None and self.num_candidates == 1:
            raise ConfigError(
                f"--pick {self.pick} picks among candidates, and --num_candidates is 1.\n"
                "  Pass --num_candidates 2 or more."
            )
        if self.pick == "scorer" and self.reward_model is None:
            raise ConfigError("--pick scorer rejects the lowest score.\n  Pass --reward_model to score with.")
        if self.pick != "scorer" and self.reward_model is not None:
            raise ConfigError(
                f"--reward_model {self.reward_model} would score nothing.\n"
                "  Pass --pick scorer to reject the lowest score, or --pair best_worst to rank all candidates."
            )
