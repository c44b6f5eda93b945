"""Whether a merged model says what its base says with the adapter: their logits, in float32, on a few prompts."""

__all__ = ["PROMPTS", "Comparison", "allowed_difference", "compare"]

import gc
import math
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from dpo.merging.shards import Written
from dpo.models import LocatedModel
from dpo.training.loading import load_causal_lm

PROMPTS = (
    "The capital of Peru is Lima, and that of Chile is",
    "def area(width, height):\n    return",
    "Two, three, five, seven, eleven: the next prime is",
    "Dear neighbour, the parcel you are waiting for has been left with",
    "Wasser besteht aus Wasserstoff und",
    "Question: Which gas do plants take in?\nAnswer:",
    "She opened the old atlas, and between two pages she found",
    "12 * 12 = 144, 13 * 13 = 169, 14 * 14 =",
)
"""Of several kinds; the answers are of no matter."""
EXACT = 1e-4
"""What float32's rounding of sums in another order may come to, of the largest logit. A wrong merge is far above it."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Logits of the merged model beside those of base and adapter."""

    num_prompts: int
    largest_logit: float
    """In magnitude, with the adapter."""
    difference: float
    """The largest, of the largest logit. Not a number where a logit is none."""
    adapter_effect: float
    """How far the adapter moves a logit at most, of the largest logit."""
    allowed: float
    """The largest difference that rounding explains, of the largest logit."""

    def agrees(self) -> bool:
        return self.difference <= self.allowed  # what is not a number does not

    def describe(self, dtype: str) -> str:
        """A few lines for the terminal."""
        cause = "sums in another order move" if dtype == "float32" else f"rounding the weights to {dtype} moves"
        prompts = "1 prompt" if self.num_prompts == 1 else f"{self.num_prompts} prompts"
        text = (
            f"checked on {prompts}: {cause} the logits by {self.difference:.1e} of the largest "
            f"({self.largest_logit:.1f}), at most {self.allowed:.1e} is allowed\n"
            f"the adapter itself moves them by {self.adapter_effect:.1e}"
        )
        if self.difference > EXACT and self.difference > self.adapter_effect / 2:
            text += f"\nwarning: {dtype} rounds away much of what the adapter says. --dtype float32 keeps it"
        return text


def allowed_difference(written: Written) -> float:
    """The largest difference that rounding explains, of the largest logit.

    A dtype of unit roundoff u moves each weight by at most u of itself: 6e-8 in float32, 2^-11 in float16, 2^-8 in
    bfloat16. Each rounded matrix so moves what comes out of it by at most about u, in a direction of its own, and n of
    them together by about u sqrt(n). Measured were 0.1 of that (SmolLM2-135M, 272 matrices in bfloat16) to 1.6 (tiny
    models of random weights). Four times is allowed, and never less than float32's 1e-4.
    """
    roundoff = max(torch.finfo(dtype).eps / 2 for dtype in written.dtypes)
    return max(EXACT, 4 * roundoff * math.sqrt(written.num_rounded))


def compare(
    located: LocatedModel,
    merged: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    num_prompts: int,
    allowed: float,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Comparison:
    """Compute both models' logits, one model in memory at a time.

    Args:
        located: Base and adapter.
        merged: Folder of the merged model.
        tokenizer: Its.
        num_prompts: How many of PROMPTS.
        allowed: The largest difference that rounding explains, of the largest logit.
        revision: Branch, tag or commit of a Hub base.
        trust_remote_code: For models with code of their own.

    Raises:
        ModelError: one of them cannot be loaded.
    """
    ids = [tokenizer(prompt, return_tensors="pt").input_ids for prompt in PROMPTS[:num_prompts]]
    with_adapter, without = logits(located, ids, revision=revision, trust_remote_code=trust_remote_code)
    gc.collect()  # a model with an adapter refers to itself, and would still be there when the next one is loaded
    folder = LocatedModel(base=str(merged), tokenizer=str(merged))
    (after,) = logits(folder, ids, revision=None, trust_remote_code=trust_remote_code)
    largest = float(with_adapter.abs().max()) or 1.0
    return Comparison(
        num_prompts=len(ids),
        largest_logit=largest,
        difference=float((after - with_adapter).abs().max()) / largest,
        adapter_effect=float((without - with_adapter).abs().max()) / largest,
        allowed=allowed,
    )


def logits(
    located: LocatedModel, ids: Sequence[torch.Tensor], *, revision: str | None, trust_remote_code: bool
) -> list[torch.Tensor]:
    """Logits of all prompts' tokens, (tokens, vocabulary): as the model is, and where it has an adapter without it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PEFT's, to its own developers
        model = load_causal_lm(located, dtype=torch.float32, revision=revision, trust_remote_code=trust_remote_code)
    states = [nullcontext()] if located.adapter is None else [nullcontext(), model.disable_adapter()]
    found = []
    for state in states:
        with state, torch.inference_mode():
            found.append(torch.cat([model(input_ids=one).logits[0] for one in ids]))
    return found
