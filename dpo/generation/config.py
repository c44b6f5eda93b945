"""The flags of `dpo generate`, except those of the data."""

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
"""The flags of the data that generation reads."""
TOP_P = 0.95


class GenerationConfig(BaseModel):
    """How answers are generated, and which of them are used. Lengths are in tokens and inclusive."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str
    model_revision: str | None = Field(
        default=None,
        description="Branch, tag or commit of a Hub model or adapter; for an adapter in a folder, of its base model.",
    )
    trust_remote_code: bool = Field(default=False, description="Run code that comes with a model or a tokenizer.")
    pair: Literal["given", "best_worst"] = Field(
        default="given",
        description="given: the source's answer is chosen, and one of the model's answers is rejected. best_worst: "
        "--reward_model scores the model's answers; the best one is chosen, and the worst one is rejected.",
    )
    num_candidates: int = Field(default=1, gt=0, description="Number of answers to generate for each prompt.")
    pick: Pick | None = Field(
        default=None,
        description="Which of several candidates --pair given rejects. longest and shortest count characters; scorer "
        "takes the one that --reward_model scores lowest. Default: random.",
    )
    reward_model: str | None = Field(
        default=None,
        description="Folder or Hub id of a sequence classifier with one label and its own chat template.",
    )
    include_given: bool = Field(
        default=False, description="Add the source's answer to the candidates of --pair best_worst."
    )
    temperature: float = Field(
        default=0.8, ge=0, description="Sampling temperature. 0 always takes the most likely token."
    )
    top_p: float = Field(
        default=TOP_P,
        gt=0,
        le=1,
        description="Sample from the most likely tokens whose probabilities add up to this value.",
    )
    max_new_tokens: int = Field(default=512, gt=0, description="Most tokens of an answer, including the end token.")
    max_prompt_length: int | None = Field(
        default=None,
        gt=0,
        description="Most tokens of a prompt. Default: the model's context length minus --max_new_tokens.",
    )
    keep_unfinished: bool = Field(
        default=False, description="Accept answers that --max_new_tokens cut off. By default they are refused."
    )
    batch_size: int = Field(default=8, gt=0, description="Prompts to answer at once, each with all its candidates.")
    limit: int | None = Field(default=None, gt=0, description="Most rows to read from each source.")
    backend: Literal["transformers", "vllm"] = Field(default="transformers", description="Library that runs the model.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Dtype of the weights. auto is bfloat16 on a GPU that supports it natively, and float32 elsewhere.",
    )

    @classmethod
    def from_flags(cls, values: Mapping[str, Any]) -> "GenerationConfig":
        """Read and check the values of the flags.

        Args:
            values: Values by flag name.

        Raises:
            ConfigError: if a value is out of range, or flags contradict each other.
        """
        config = read_fields(cls, values)
        config.check()
        return config

    @property
    def reads_given(self) -> bool:
        """Whether the source's own answer can become part of a pair."""
        return self.pair == "given" or self.include_given

    def check(self) -> None:
        """Refuse flags that contradict each other, or that have no effect.

        Raises:
            ConfigError: if there are such flags.
        """
        if self.pair == "best_worst":
            self.check_best_worst()
        else:
            self.check_given()
        if self.temperature == 0 and self.num_candidates > 1:
            raise ConfigError(
                f"--num_candidates {self.num_candidates}: at --temperature 0 all candidates are the same.\n"
                "  Raise --temperature, or leave out --num_candidates."
            )
        if self.temperature == 0 and self.top_p != TOP_P:
            raise ConfigError(f"--top_p {self.top_p:g} has no effect at --temperature 0.\n  Leave out --top_p.")

    def check_best_worst(self) -> None:
        if self.reward_model is None:
            raise ConfigError(
                "--pair best_worst needs a reward model to rank the model's answers.\n  Pass --reward_model."
            )
        if self.pick is not None:
            raise ConfigError(
                f"--pick {self.pick} applies only to --pair given. --pair best_worst rejects the lowest score.\n"
                "  Leave out one of the two flags."
            )
        if self.num_candidates + self.include_given < 2:
            raise ConfigError(
                "--pair best_worst needs at least two answers per prompt.\n"
                "  Pass --num_candidates 2 or more, or --include_given to rank the source's answer too."
            )

    def check_given(self) -> None:
        if self.include_given:
            raise ConfigError(
                "--include_given applies only to --pair best_worst. With --pair given, the source's answer is always "
                "the chosen one.\n  Leave out --include_given."
            )
        if self.pick is not None and self.num_candidates == 1:
            raise ConfigError(
                f"--pick {self.pick} chooses among several candidates, but --num_candidates is 1.\n"
                "  Pass --num_candidates 2 or more."
            )
        if self.pick == "scorer" and self.reward_model is None:
            raise ConfigError(
                "--pick scorer needs a reward model to score the model's answers.\n  Pass --reward_model."
            )
        if self.pick != "scorer" and self.reward_model is not None:
            raise ConfigError(
                f"--reward_model {self.reward_model} has nothing to score with these flags.\n"
                "  Pass --pick scorer to reject the lowest score, or --pair best_worst to rank all candidates."
            )
