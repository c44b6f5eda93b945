"""Whether a merged model says what its base says with the adapter: their logits, in float32, on a few prompts."""

__all__ = ["Comparison", "compare"]

import gc
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dpo.errors import ModelError
from dpo.merging.options import PROMPTS
from dpo.merging.shards import Written
from dpo.models.loading import load_causal_lm
from dpo.models.locating import LocatedModel

EXACT = 1e-4
"""What float32's rounding of sums in another order may come to, of the largest logit. A wrong merge is far above it."""
OF_ROUNDING = 0.1
"""What may be left of the effect of rounding to a narrower dtype when both sides are rounded, since sums in another
order round some weights to the other side. 0.0004 was (SmolLM2-135M in bfloat16)."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Logits of the merged model beside what base and adapter give in the same dtype."""

    num_prompts: int
    largest_logit: float
    """In magnitude, with the adapter."""
    difference: float
    """The largest, of the largest logit. Not a number where a logit is none."""
    adapter_effect: float
    """How far the adapter moves a logit at most, of the largest logit."""
    rounding_effect: float
    """The same of rounding the merged weights to what they are stored in; 0 in float32."""

    @property
    def allowed(self) -> float:
        """The largest difference that is no mistake, of the largest logit."""
        return max(EXACT, OF_ROUNDING * self.rounding_effect)

    def agrees(self) -> bool:
        return self.difference <= self.allowed  # what is not a number does not

    def describe(self, dtype: str) -> str:
        """A few lines for the terminal."""
        prompts = "1 prompt" if self.num_prompts == 1 else f"{self.num_prompts} prompts"
        lines = [
            f"checked on {prompts}: the logits differ from those of base and adapter in {dtype} by "
            f"{self.difference:.1e} of the largest ({self.largest_logit:.1f}), at most {self.allowed:.1e} is allowed",
            f"the adapter moves them by {self.adapter_effect:.1e}",
        ]
        if self.rounding_effect:
            lines[-1] += f", rounding to {dtype} by {self.rounding_effect:.1e}"
        if self.rounding_effect > self.adapter_effect / 2:
            lines.append(f"warning: {dtype} rounds away much of what the adapter says. --dtype float32 keeps it")
        return "\n".join(lines)


def compare(
    located: LocatedModel,
    merged: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    num_prompts: int,
    written: Written,
    trust_remote_code: bool = False,
) -> Comparison:
    """Compute both models' logits, one model in memory at a time.

    Where the weights were rounded, the same is done to what PEFT merges in memory, which must say in float32 what base
    and adapter say: rounding moves logits as far as many an adapter does, and would hide a merge that does nothing.

    Args:
        located: Base and adapter.
        merged: Folder of the merged model.
        tokenizer: Its.
        num_prompts: How many of PROMPTS.
        written: What its weights are stored in.
        trust_remote_code: For models with code of their own.

    Raises:
        ModelError: one of them cannot be loaded, or PEFT cannot merge them.
    """
    ids = [tokenizer(prompt, return_tensors="pt").input_ids for prompt in PROMPTS[:num_prompts]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PEFT's, to its own developers
        model = load_causal_lm(located, dtype=torch.float32, trust_remote_code=trust_remote_code)
    adapted = logits(model, ids)
    with model.disable_adapter():
        without = logits(model, ids)
    expected, inexact = adapted, torch.zeros(())
    if any(dtype != torch.float32 for dtype in written.dtypes):
        whole = merge_in_memory(model)
        inexact = (logits(whole, ids) - adapted).abs().max()
        for name, parameter in whole.named_parameters(remove_duplicate=False):
            parameter.data = parameter.data.to(written.dtype_of(name)).float()
        expected = logits(whole, ids)
        del whole
    del model
    gc.collect()  # a model with an adapter refers to itself, and would still be there when the next one is loaded
    folder = LocatedModel(base=str(merged), tokenizer=str(merged))
    after = logits(load_causal_lm(folder, dtype=torch.float32, trust_remote_code=trust_remote_code), ids)
    largest = float(adapted.abs().max()) or 1.0
    rounding = float((expected - adapted).abs().max())
    difference = torch.maximum((after - expected).abs().max(), inexact)  # not a number where one is none
    return Comparison(
        num_prompts=len(ids),
        largest_logit=largest,
        difference=float(difference) / largest,
        adapter_effect=float((without - adapted).abs().max()) / largest,
        rounding_effect=rounding / largest,
    )


@torch.inference_mode()
def logits(model: PreTrainedModel | PeftModel, ids: Sequence[torch.Tensor]) -> torch.Tensor:
    """Logits of all prompts' tokens, (tokens, vocabulary)."""
    return torch.cat([model(input_ids=one).logits[0] for one in ids])


def merge_in_memory(model: PeftModel) -> PreTrainedModel:
    """The adapter merged by PEFT, each adapted weight first parted from those that it is tied to.

    Raises:
        ModelError: PEFT cannot.
    """
    shared = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    for layer in [module for module in model.modules() if isinstance(module, BaseTunerLayer)]:
        base = layer.get_base_layer()
        weight = getattr(base, "weight", None)
        if isinstance(weight, nn.Parameter) and shared[id(weight)] > 1:
            base.weight = nn.Parameter(weight.data.clone(), requires_grad=False)
    try:
        return model.merge_and_unload()
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"PEFT cannot merge the adapter, to compare with: {error}\n  Pass --check_prompts 0."
        ) from error
