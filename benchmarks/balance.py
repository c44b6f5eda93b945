"""Measures how evenly pairs are dealt to many ranks: mean over max of the ranks' tokens in a step. 1 is even.

    python benchmarks/balance.py --datasets ultrafeedback=rows.jsonl --max_length 768

The pairs of each step are drawn with replacement from the lengths of real pairs, and dealt in the same way as in the
packed engine. The table also shows the usual deal, in which each rank takes the next pairs of a shuffled list. All
ranks wait for the slowest one, so the number is the fraction of the time that an average rank works.
"""

import argparse
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dpo.data.config import DataConfig  # noqa: E402 - imported after sys.path names the checkout
from dpo.data.pipeline import prepare  # noqa: E402
from dpo.data.rendering.tokenization import load_tokenizer  # noqa: E402
from dpo.engine.loading import count_tokens  # noqa: E402
from dpo.engine.planning import plan_micro_batches  # noqa: E402
from dpo.models.embedded import EMBEDDED, find_model  # noqa: E402

RANKS = (8, 64, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--datasets", nargs="+", default=[f"nectar={ROOT}/samples/nectar.jsonl"])
    parser.add_argument("--max_length", type=int, default=2048)
    parser.add_argument("--pairs_a_rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    model = find_model(options.model)
    data = DataConfig(datasets=tuple(options.datasets), max_length=options.max_length)
    tokens = count_tokens(prepare(data, load_tokenizer(model), progress=False).train)
    print(f"{len(tokens)} pairs of {min(tokens)} to {max(tokens)} tokens, median {statistics.median(tokens):.0f}")
    print(f"{options.pairs_a_rank} pairs per rank and step, {options.steps} steps; mean over max of tokens per rank")
    print(f"{'ranks':>6}{'dealt evenly':>14}{'worst step':>12}{'at random':>11}")
    for ranks in RANKS:
        generator = random.Random(ranks)
        steps = [generator.choices(tokens, k=options.pairs_a_rank * ranks) for _ in range(options.steps)]
        even = [evenness(dealt_evenly(step, ranks)) for step in steps]
        at_random = [evenness(dealt_in_order(step, ranks)) for step in steps]
        print(f"{ranks:>6}{statistics.mean(even):>14.4f}{min(even):>12.4f}{statistics.mean(at_random):>11.4f}")


def dealt_evenly(step: Sequence[int], ranks: int) -> list[int]:
    """Return the tokens of each rank if pairs are dealt as in the packed engine."""
    (row,) = plan_micro_batches(range(len(step)), step, world_size=ranks, num_micro_batches=1)
    return [sum(step[pair] for pair in batch.pairs) for batch in row]


def dealt_in_order(step: Sequence[int], ranks: int) -> list[int]:
    """Return the tokens of each rank if each rank takes the next pairs of the list."""
    share = len(step) // ranks
    return [sum(step[rank * share : (rank + 1) * share]) for rank in range(ranks)]


def evenness(tokens_a_rank: Sequence[int]) -> float:
    return statistics.mean(tokens_a_rank) / max(tokens_a_rank)


if __name__ == "__main__":
    main()
