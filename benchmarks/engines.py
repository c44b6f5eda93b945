"""Compares the packed engine, the padded engine and plain trl.DPOTrainer on the same pairs and the same model.

    python benchmarks/engines.py --datasets ultrafeedback=rows.jsonl --max_length 768 --pairs 24 --pairs_a_step 4

Each engine trains in a separate process, so that its peak memory can be measured. The engines take turns, --rounds
times. All engines take the pairs in the order of the data. The first step allocates memory and is not counted.
The table also shows the needed operations per second, as a fraction of the machine's peak for matrix products.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

ENGINES = ("trl", "padded", "packed", "packed+cache")
"""trl, padded and packed run the reference model during training. packed+cache reads a warm reference cache."""


def main() -> None:
    options = parse()
    if options.engine:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as cache:
        if "packed+cache" in options.engines:
            run("packed+cache", cache)  # fills the cache
        rounds = [{engine: run(engine, cache) for engine in options.engines} for _ in range(options.rounds)]
    print_table(options, rounds)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--datasets", nargs="+", default=[f"nectar={ROOT}/samples/nectar.jsonl"])
    parser.add_argument("--max_length", type=int, default=768)
    parser.add_argument("--pairs", type=int, default=24, help="Number of pairs, from the start of the data.")
    parser.add_argument("--pairs_a_step", type=int, default=4)
    parser.add_argument("--max_tokens_per_micro_batch", type=int, help="For the packed engine.")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="File for all measurements.")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    return parser.parse_args()


def run(engine: str, cache: str) -> dict[str, Any]:
    """Measure one engine in a separate process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--engine", engine, "--cache", cache]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"{engine} failed:\n{finished.stderr}")
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    print(f"{engine:<14}{result['seconds']:8.1f} s, loss {result['loss']:.4f}", file=sys.stderr, flush=True)
    return result


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train, and measure the steps after the first one."""
    from benchmarks.flops import matmul_peak, needed_flops
    from dpo.training.distributed import set_up

    if options.engine != "trl":  # TRL runs without this project's setup, as its users run it
        set_up(deepspeed=False)
    with tempfile.TemporaryDirectory() as output_dir:
        trainer, pairs = build(options, output_dir)
        clock = step_clock()
        trainer.add_callback(clock)
        result = trainer.train()
        seconds = sum(clock.seconds[1:])
        counted = pairs[options.pairs_a_step :]
        flops = needed_flops(trainer.model, counted, reference=options.engine != "packed+cache")
        peak_memory = trainer_peak_gib()
        return {
            "seconds": seconds,
            "pairs": len(counted),
            "tokens": sum(2 * len(p["prompt_ids"]) + len(p["chosen_ids"]) + len(p["rejected_ids"]) for p in counted),
            "peak_memory_gib": peak_memory,
            "needed_flops": flops,
            "matmul_peak": matmul_peak(options.dtype),
            "loss": result.training_loss,
            "steps": clock.seconds,
        }


def build(options: argparse.Namespace, output_dir: str) -> tuple[Any, list[dict[str, Any]]]:
    """Build the trainer of an engine, and the pairs that it trains on."""
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    from dpo.data.config import DataConfig
    from dpo.data.pipeline import prepare
    from dpo.data.rendering.tokenization import load_tokenizer
    from dpo.engine.reference_cache import ReferenceCache, weights_fingerprint
    from dpo.models.locating import locate
    from dpo.training.policy.model import load_tokenizer_for
    from dpo.training.settings.resolving import TrainingConfig
    from dpo.training.trainers.packed import PackedTrainer, Reference
    from dpo.training.trainers.padded import PreferenceTrainer

    located = locate(options.model)
    model = located.base
    data = DataConfig(datasets=tuple(options.datasets), max_length=options.max_length)
    prepared = prepare(data, load_tokenizer(model), progress=False)
    pairs = prepared.train.select(range(options.pairs))

    def load() -> Any:
        return AutoModelForCausalLM.from_pretrained(model, dtype="float32")

    common: dict[str, Any] = {
        "output_dir": output_dir,
        "per_device_train_batch_size": options.pairs_a_step,
        "gradient_checkpointing": False,
        "bf16": options.dtype == "bfloat16",
        "use_cpu": True,
        "train_sampling_strategy": "sequential",
        "max_steps": options.pairs // options.pairs_a_step,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
    }
    ours = common | {"model_name_or_path": model, "global_batch_size": options.pairs_a_step}
    if options.engine == "padded":
        config = TrainingConfig(**ours, engine="padded")
    elif options.engine != "trl":
        config = TrainingConfig(**ours, max_tokens_per_micro_batch=options.max_tokens_per_micro_batch)
    else:
        config = DPOConfig(**common)
    tokenizer = load_tokenizer_for(located, TrainingConfig(**ours), prepared)
    arguments: dict[str, Any] = {
        "model": load(),
        "args": config,
        "train_dataset": pairs,
        "processing_class": tokenizer,
    }
    if options.engine == "packed":
        return PackedTrainer(ref_model=load(), backend="pairwise", **arguments), list(pairs)
    if options.engine == "packed+cache":
        cache = ReferenceCache(Path(options.cache), weights_fingerprint(model) | {"dtype": options.dtype})
        reference = Reference(load=load, cache=cache)
        return PackedTrainer(reference=reference, backend="pairwise", **arguments), list(pairs)
    if options.engine == "padded":
        return PreferenceTrainer(ref_model=load(), **arguments), list(pairs)

    class Plain(DPOTrainer):
        """TRL's trainer on prepared token ids, so that all engines train on the same tokens."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"])

    return Plain(ref_model=load(), **arguments), list(pairs)


def trainer_peak_gib() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def step_clock() -> Any:
    """Build a callback that records the seconds of each optimizer step."""
    from transformers import TrainerCallback

    class StepClock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.seconds.append(time.perf_counter() - self.start)

    return StepClock()


def print_table(options: argparse.Namespace, rounds: list[dict[str, Any]]) -> None:
    """Print medians over the rounds, and the speed and memory of each engine relative to TRL's."""
    if options.json:
        options.json.write_text(json.dumps({"options": vars(options), "rounds": rounds}, indent=2, default=str) + "\n")
    first = rounds[0][options.engines[0]]
    print(
        f"\n{first['pairs']} pairs, {options.pairs_a_step} per step, {options.dtype}; medians of {len(rounds)} round(s)"
    )
    print(f"{'engine':<14}{'pairs/s':>9}{'tokens/s':>10}{'GiB':>7}{'of peak':>9}{'speed':>8}{'memory':>8}")
    for engine in options.engines:
        results = [turn[engine] for turn in rounds]
        speed = statistics.median(r["pairs"] / r["seconds"] for r in results)
        tokens = statistics.median(r["tokens"] / r["seconds"] for r in results)
        memory = statistics.median(r["peak_memory_gib"] for r in results)
        share = statistics.median(r["needed_flops"] / r["seconds"] / r["matmul_peak"] for r in results)
        line = f"{engine:<14}{speed:>9.3f}{tokens:>10.0f}{memory:>7.2f}{share:>9.2f}"
        if "trl" in options.engines:
            base = [turn["trl"] for turn in rounds]
            faster = statistics.median(b["seconds"] / r["seconds"] for b, r in zip(base, results, strict=True))
            smaller = statistics.median(
                r["peak_memory_gib"] / b["peak_memory_gib"] for b, r in zip(base, results, strict=True)
            )
            line += f"{faster:>7.2f}x{smaller:>8.2f}"
        print(line)


if __name__ == "__main__":
    main()
