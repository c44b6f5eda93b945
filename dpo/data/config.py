"""What a user may ask of the data: the flags that main.py and the data commands share."""

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
"""What the adapter `columns` reads; --column_NAME says where."""
COMPARING = (
    *("pairing", "column_rejected", "column_score_chosen", "column_score_rejected", "keep_ties", "keep_identical"),
    *("min_score_margin", "drop_conflicts", "balance_length"),
)
"""Flags that are about a second answer. In stage sft there is none."""


class DataConfig(BaseModel):
    """Where pairs come from and which are kept. Lengths are in tokens and inclusive."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    stage: Stage = Field(
        default="dpo",
        description="dpo trains on pairs. sft trains on answers: those of instruction rows, or pairs' chosen ones.",
    )
    datasets: tuple[str, ...] = Field(
        default=(),
        description="Training sources, each ADAPTER[=SOURCE][:SPLIT][@FRACTION]: nectar, ultrafeedback=rows.parquet, "
        "orca_dpo_pairs@0.5. SOURCE is a file or folder of JSON, JSONL, CSV or Parquet, or a Hub id; "
        "the adapter's own Hub id where it is left out.",
    )
    adapter: tuple[str, ...] = Field(
        default=(), description="Python files that define an ADAPTER each, for --datasets to name."
    )
    prepared: str | None = Field(
        default=None,
        description="Folder that `python -m dpo prepare` made, in place of --datasets and what goes with it.",
    )
    eval_datasets: tuple[str, ...] = Field(default=(), description="Held-out sources, in the same form.")
    validation_split: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the kept pairs to hold out, split by prompt so that no prompt stands on both sides; with "
        "--turns all by the first question, so that no conversation does.",
    )
    template: str = Field(
        default="chatml",
        description="A name in templates/, a path to a .jinja file, or 'model' for the tokenizer's own.",
    )
    max_length: int = Field(default=2048, gt=0, description="Longest prompt plus its longer answer.")
    max_prompt_length: int | None = Field(default=None, gt=0, description="Longest prompt.")
    max_target_length: int | None = Field(default=None, gt=0, description="Longest answer, end token included.")
    pairing: Pairing = Field(default="best_worst", description="How ranked answers become pairs.")
    turns: Turns = Field(
        default="last",
        description="For --stage sft, of conversations (messages, slim_orca, ultrachat): whether the last assistant "
        "turn is the answer, or all are, each a row of its own with the turns before it as its prompt.",
    )
    min_score_ratio: float = Field(
        default=2.0, ge=1, description="Smallest ratio of the better to the worse score of a pair, for shp."
    )
    column_prompt: str | None = Field(default=None, description="For columns=SOURCE: the column of the prompt.")
    column_chosen: str | None = Field(default=None, description="For columns=SOURCE: of the better answer.")
    column_rejected: str | None = Field(default=None, description="For columns=SOURCE: of the worse answer.")
    column_system: str | None = Field(default=None, description="For columns=SOURCE: of a system message.")
    column_score_chosen: str | None = Field(default=None, description="For columns=SOURCE: of the better score.")
    column_score_rejected: str | None = Field(default=None, description="For columns=SOURCE: of the worse score.")
    keep_ties: bool = Field(default=False, description="Keep pairs whose two scores are equal.")
    keep_identical: bool = Field(default=False, description="Keep pairs whose two answers are the same.")
    min_score_margin: float | None = Field(
        default=None,
        description="Least that the chosen answer scores above the rejected one. Pairs without scores are let through.",
    )
    drop_refusals: bool = Field(
        default=False, description="Drop pairs whose chosen answer begins with a refusal (English phrases)."
    )
    drop_duplicates: Literal["no", "exact", "near"] = Field(
        default="no",
        description="Drop pairs that repeat an earlier one, of any source: to the letter, or with prompt and both "
        "answers alike (four fifths of their five-word runs in common; some 6 KiB of memory a pair).",
    )
    drop_conflicts: bool = Field(
        default=False, description="Drop both of two pairs with one prompt and the answers the other way round."
    )
    drop_leaked_prompts: bool = Field(
        default=False, description="Drop training pairs whose prompt stands in the eval sources too."
    )
    decontaminate: tuple[str, ...] = Field(
        default=(),
        description="Files of prompts that no pair may hold, such as a benchmark's: text with one a line, or JSON, "
        "JSONL, CSV or Parquet with a column 'prompt'. A run of 13 words in common counts, or a whole turn.",
    )
    balance_length: bool = Field(
        default=False,
        description="Drop pairs at random until, at every size of the difference, the chosen answer is as often the "
        "longer as the shorter. --weights and --validation_split draw from what is left.",
    )
    max_pairs_per_prompt: int | None = Field(
        default=None, gt=0, description="Most pairs of one prompt, drawn at random."
    )
    max_pairs_per_source: int | None = Field(
        default=None, gt=0, description="Most training pairs of one source, drawn at random."
    )
    weights: tuple[float, ...] = Field(
        default=(),
        description="Shares of the --datasets in the training pairs, one each: 3 1 takes three of the first for each "
        "of the second. No pair is repeated; pairs above a source's share are dropped at random.",
    )
    strict: bool = Field(
        default=False,
        description="Make an error of what is counted and shown else: boundary_shift, double_bos, no_end_token, "
        "unknown_role.",
    )
    num_proc: int | None = Field(default=None, gt=0, description="Processes that prepare rows. Default: one a core.")
    special_tokens_in_text: Literal["drop", "error", "keep"] = Field(
        default="drop",
        description="What to do with a row whose text holds the literal of a control token, such as <|im_end|>.",
    )
    add_control_tokens: bool = Field(
        default=False,
        description="Add the template's control tokens to a tokenizer that lacks them, and resize the embeddings.",
    )
    seed: int = Field(default=42, ge=0, lt=2**32, description="Seed of every random choice.")

    @classmethod
    def from_flags(cls, values: Mapping[str, Any]) -> "DataConfig":
        """Read the values of flags or of a YAML file.

        Raises:
            ConfigError: a value is of the wrong type or out of its range, or values contradict each other.
        """
        config = read_fields(cls, values)
        config.check()
        return config

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ConfigError: no training source, a flag of another stage, two ways to hold out, or a bound that no pair can
                reach.
        """
        if self.prepared is not None:
            self.check_prepared_alone()
            return
        if not self.datasets:
            raise ConfigError(
                "no training data: expected --datasets ADAPTER[=SOURCE][@FRACTION] ...\n"
                "  `python -m dpo adapters` lists the adapters, and --help every flag."
            )
        self.check_stage()
        if self.eval_datasets and self.validation_split:
            raise ConfigError(
                "--eval_datasets and --validation_split both say what to hold out.\n  Pass one of the two."
            )
        sources = [*self.datasets, *self.eval_datasets]
        if repeated := sorted({source for source in sources if sources.count(source) > 1}):
            raise ConfigError(f"a source is named twice: {', '.join(repeated)}")
        if self.weights and (len(self.weights) != len(self.datasets) or min(self.weights) <= 0):
            raise ConfigError(
                f"--weights {' '.join(f'{weight:g}' for weight in self.weights)}: expected one number above 0 for each "
                f"of the {len(self.datasets)} --datasets."
            )
        if self.drop_leaked_prompts and not self.eval_datasets:
            raise ConfigError(
                "--drop_leaked_prompts compares --datasets with --eval_datasets, and there are none.\n"
                "  Leave it out: --validation_split never leaves a prompt on both sides."
            )
        for name, bound in (
            ("max_prompt_length", self.max_prompt_length),
            ("max_target_length", self.max_target_length),
        ):
            if bound is not None and bound > self.max_length:
                raise ConfigError(
                    f"--{name} {bound} is above --max_length {self.max_length}, which bounds prompt plus answer.\n"
                    f"  Lower --{name} or raise --max_length."
                )

    def check_stage(self) -> None:
        """Refuse flags that have no meaning in the stage."""
        if self.stage == "dpo" and self.turns != "last":
            raise ConfigError(
                f"--turns {self.turns} makes answers of a conversation's turns, and --stage dpo trains on pairs.\n"
                "  Leave it out, or pass --stage sft."
            )
        for name in COMPARING if self.stage == "sft" else ():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ConfigError(
                    f"--{name} is about the two answers of a pair, and --stage sft takes one: the chosen, or the best "
                    "of several.\n  Leave it out."
                )

    def check_prepared_alone(self) -> None:
        """Refuse a folder that is none, and flags that a preparation has decided already."""
        if not self.prepared_folder.is_dir():
            raise ConfigError(
                f"--prepared {self.prepared}: there is no such folder.\n  `python -m dpo prepare --output` makes one."
            )
        for name, field in type(self).model_fields.items():
            if name not in ("prepared", "seed", "stage") and getattr(self, name) != field.default:
                raise ConfigError(
                    f"--{name} is decided already in --prepared {self.prepared}.\n  Leave out one of the two."
                )

    @property
    def prepared_folder(self) -> Path:
        """--prepared; a shell expands ~, a YAML file does not."""
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
