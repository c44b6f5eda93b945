"""The data flags, which main.py and the data commands share."""

__all__ = ["DataConfig", "Stage"]

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dpo.adapters.base import AdapterOptions, Pairing, Turns
from dpo.errors import ConfigError
from dpo.flags import read_fields

Stage = Literal["dpo", "sft"]
COLUMNS = ("prompt", "chosen", "rejected", "system", "score_chosen", "score_rejected")
"""The columns that the adapter `columns` reads. --column_NAME gives the user's name of a column."""
COMPARING = (
    *("pairing", "column_rejected", "column_score_chosen", "column_score_rejected", "keep_ties", "keep_identical"),
    *("min_score_margin", "drop_conflicts", "balance_length"),
)
"""Flags that need two answers. Stage sft uses one."""


class DataConfig(BaseModel):
    """Sources of the pairs, and which pairs to keep. Lengths are in tokens and inclusive."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    stage: Stage = Field(
        default="dpo",
        description="dpo trains on pairs. sft trains on single answers: those of instruction rows, or the chosen "
        "answers of pairs.",
    )
    datasets: tuple[str, ...] = Field(
        default=(),
        description="Training sources, each in the form ADAPTER[=SOURCE][:SPLIT][@FRACTION], such as nectar, "
        "ultrafeedback=rows.parquet or orca_dpo_pairs@0.5. SOURCE is a JSON, JSONL, CSV or Parquet file, a folder of "
        "such files, or a Hub id. Without SOURCE, the adapter's own Hub data set is used.",
    )
    adapter: tuple[str, ...] = Field(
        default=(), description="Python files, each of which defines an ADAPTER that --datasets can name."
    )
    prepared: str | None = Field(
        default=None,
        description="Folder written by `dpo prepare`, to use instead of --datasets and the other data flags.",
    )
    eval_datasets: tuple[str, ...] = Field(default=(), description="Held-out sources, in the same form as --datasets.")
    validation_split: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the kept pairs to hold out. Pairs are split by prompt, so that no prompt is on both "
        "sides. With --turns all, they are split by the first user turn, so that no conversation is on both sides.",
    )
    template: str = Field(
        default="chatml",
        description="Chat template: a name in templates/, a path to a .jinja file, or 'model' for the tokenizer's own.",
    )
    max_length: int = Field(
        default=2048,
        gt=0,
        description="Largest number of tokens of the prompt plus the longer answer. Longer pairs are dropped, not "
        "truncated.",
    )
    max_prompt_length: int | None = Field(
        default=None, gt=0, description="Largest number of tokens of the prompt. Longer pairs are dropped."
    )
    max_target_length: int | None = Field(
        default=None,
        gt=0,
        description="Largest number of tokens of the longer answer, including the end token. Longer pairs are dropped.",
    )
    pairing: Pairing = Field(
        default="best_worst",
        description="How to make pairs from ranked answers. best_worst: the best with the worst. best_random: the best "
        "with a random lower one. adjacent: each with the next one. all: each with every lower one.",
    )
    turns: Turns = Field(
        default="last",
        description="For --stage sft and conversations (adapters messages, slim_orca, ultrachat): which assistant "
        "turns are answers. last: only the last one. all: every one, each as a separate row with the turns before it "
        "as the prompt.",
    )
    min_score_ratio: float = Field(
        default=2.0,
        ge=1,
        description="For the adapter shp: smallest ratio of the better to the worse score. Pairs below it are dropped.",
    )
    column_prompt: str | None = Field(
        default=None, description="For columns=SOURCE: name of the column with the prompt."
    )
    column_chosen: str | None = Field(
        default=None, description="For columns=SOURCE: name of the column with the better answer."
    )
    column_rejected: str | None = Field(
        default=None, description="For columns=SOURCE: name of the column with the worse answer."
    )
    column_system: str | None = Field(
        default=None, description="For columns=SOURCE: name of the column with the system message."
    )
    column_score_chosen: str | None = Field(
        default=None, description="For columns=SOURCE: name of the column with the score of the better answer."
    )
    column_score_rejected: str | None = Field(
        default=None, description="For columns=SOURCE: name of the column with the score of the worse answer."
    )
    keep_ties: bool = Field(
        default=False, description="Keep pairs whose two scores are equal, which are otherwise dropped."
    )
    keep_identical: bool = Field(
        default=False, description="Keep pairs whose two answers are identical, which are otherwise dropped."
    )
    min_score_margin: float | None = Field(
        default=None,
        description="Smallest value of the chosen answer's score minus the rejected answer's score. Pairs below it are "
        "dropped. Pairs without scores are kept.",
    )
    drop_refusals: bool = Field(
        default=False,
        description="Drop pairs whose chosen answer begins with a refusal. Only English phrases are recognized.",
    )
    drop_duplicates: Literal["no", "exact", "near"] = Field(
        default="no",
        description="Drop pairs that repeat an earlier pair of any source. exact: prompt and both answers are equal. "
        "near: also pairs whose prompt and both answers are similar (four fifths of their five-word runs in common); "
        "this needs about 6 KiB of memory for each pair.",
    )
    drop_conflicts: bool = Field(
        default=False,
        description="Drop both of two pairs that have the same prompt, and whose chosen and rejected answers are "
        "swapped.",
    )
    drop_leaked_prompts: bool = Field(
        default=False, description="Drop training pairs whose prompt is also in the eval sources."
    )
    decontaminate: tuple[str, ...] = Field(
        default=(),
        description="Files of prompts that training must not contain, such as those of a benchmark: text files with "
        "one prompt on each line, or JSON, JSONL, CSV or Parquet files with a column 'prompt'. Pairs whose prompt "
        "shares 13 consecutive words or a whole turn with one of them are dropped.",
    )
    balance_length: bool = Field(
        default=False,
        description="Drop training pairs at random until, for every size of the length difference, the chosen answer "
        "is the longer one as often as the shorter one. --weights and --validation_split then draw from the remaining "
        "pairs.",
    )
    max_pairs_per_prompt: int | None = Field(
        default=None,
        gt=0,
        description="Largest number of training pairs of one prompt. Pairs above it are dropped at random.",
    )
    max_pairs_per_source: int | None = Field(
        default=None,
        gt=0,
        description="Largest number of training pairs of one source. Pairs above it are dropped at random.",
    )
    weights: tuple[float, ...] = Field(
        default=(),
        description="Proportions of the --datasets in the training pairs, one number for each. For example, 3 1 takes "
        "three pairs of the first source for each pair of the second. No pair is repeated; surplus pairs are dropped "
        "at random.",
    )
    strict: bool = Field(
        default=False,
        description="Stop with an error at the first row with boundary_shift, double_bos, no_end_token or "
        "unknown_role. Without this flag, such rows are counted in the data report.",
    )
    num_proc: int | None = Field(
        default=None, gt=0, description="Number of processes that prepare rows. Default: one for each core."
    )
    special_tokens_in_text: Literal["drop", "error", "keep"] = Field(
        default="drop",
        description="What to do with a row whose text contains the literal of a control token, such as <|im_end|>.",
    )
    add_control_tokens: bool = Field(
        default=False,
        description="Add the template's control tokens to a tokenizer that lacks them, and resize the embeddings.",
    )
    seed: int = Field(default=42, ge=0, lt=2**32, description="Seed of every random choice.")

    @classmethod
    def from_flags(cls, values: Mapping[str, Any]) -> "DataConfig":
        """Build a checked configuration from the values of flags or of a YAML file.

        Raises:
            ConfigError: if a value has the wrong type or is out of range, or if values contradict each other.
        """
        config = read_fields(cls, values)
        config.check()
        return config

    def check(self) -> None:
        """Check that the flags do not contradict each other.

        Raises:
            ConfigError: if there is no training source, a flag does not apply to the stage, pairs are held out in two
                ways, or a limit is above --max_length.
        """
        if self.prepared is not None:
            self.check_prepared_alone()
            return
        if not self.datasets:
            raise ConfigError(
                "no training data: expected --datasets ADAPTER[=SOURCE][@FRACTION] ...\n"
                "  `dpo adapters` lists the adapters, and --help lists every flag."
            )
        self.check_stage()
        if self.eval_datasets and self.validation_split:
            raise ConfigError("--eval_datasets and --validation_split both hold pairs out.\n  Pass only one of them.")
        sources = [*self.datasets, *self.eval_datasets]
        if repeated := sorted({source for source in sources if sources.count(source) > 1}):
            raise ConfigError(f"a source is named twice: {', '.join(repeated)}.\n  Name each source once.")
        if self.weights and (len(self.weights) != len(self.datasets) or min(self.weights) <= 0):
            raise ConfigError(
                f"--weights {' '.join(f'{weight:g}' for weight in self.weights)}: expected one number above 0 for each "
                f"of the {len(self.datasets)} --datasets."
            )
        if self.drop_leaked_prompts and not self.eval_datasets:
            raise ConfigError(
                "--drop_leaked_prompts compares --datasets with --eval_datasets, but there are no --eval_datasets.\n"
                "  Leave it out. --validation_split never puts a prompt on both sides."
            )
        for name, bound in (
            ("max_prompt_length", self.max_prompt_length),
            ("max_target_length", self.max_target_length),
        ):
            if bound is not None and bound > self.max_length:
                raise ConfigError(
                    f"--{name} {bound} is above --max_length {self.max_length}, which limits prompt plus answer.\n"
                    f"  Lower --{name} or raise --max_length."
                )

    def check_stage(self) -> None:
        """Check that all flags apply to the stage."""
        if self.stage == "dpo" and self.turns != "last":
            raise ConfigError(
                f"--turns {self.turns} makes answers from the turns of a conversation, but --stage dpo trains on "
                "pairs.\n"
                "  Leave it out, or pass --stage sft."
            )
        for name in COMPARING if self.stage == "sft" else ():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ConfigError(
                    f"--{name} is about the two answers of a pair, but --stage sft uses only one: the chosen answer, "
                    "or the best of several.\n  Leave it out."
                )

    def check_prepared_alone(self) -> None:
        """Check that the folder exists and that no other data flag is set, because the preparation decided them."""
        if not self.prepared_folder.is_dir():
            raise ConfigError(
                f"--prepared {self.prepared}: there is no such folder.\n  `dpo prepare --output FOLDER` creates one."
            )
        for name, field in type(self).model_fields.items():
            if name not in ("prepared", "seed", "stage") and getattr(self, name) != field.default:
                raise ConfigError(
                    f"--{name} cannot be combined with --prepared {self.prepared}, which was made with its own value.\n"
                    "  Leave out one of the two flags."
                )

    @property
    def prepared_folder(self) -> Path:
        """Path of --prepared, with ~ expanded, which a shell does but a YAML file does not."""
        return Path(str(self.prepared)).expanduser()

    @property
    def holds_out(self) -> bool:
        """Whether pairs are held out."""
        if self.prepared is not None:
            return (self.prepared_folder / "eval").is_dir()
        return bool(self.eval_datasets or self.validation_split)

    def adapter_options(self) -> AdapterOptions:
        given = {name: getattr(self, f"column_{name}") for name in COLUMNS}
        return AdapterOptions(
            pairing=self.pairing,
            turns=self.turns,
            seed=self.seed,
            min_score_ratio=self.min_score_ratio,
            columns={name: column for name, column in given.items() if column is not None},
        )
