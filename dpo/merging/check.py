"""Checks a merged model: compares its logits with those of the base with the adapter, in float32, on a few prompts."""

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

FLOAT32_TOLERANCE = 1e-4
"""Allowed difference from float32 sums in another order, relative to the largest logit. A wrong merge is far above."""
ROUNDING_SHARE = 0.1
"""Allowed share of the effect of rounding to a narrower dtype, when both sides are rounded. Sums in another order round
some weights in the other direction. Measured: 0.0004 (SmolLM2-135M in bfloat16)."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The logits of the merged model, compared with those of the base with the adapter in the same dtype.

    Differences and effects are the largest over all logits, relative to largest_logit.
    """

    num_prompts: int
    largest_logit: float
    """Largest magnitude of a logit, with the adapter."""
    difference: float
    """How far the merged model's logits are from the expected ones. NaN if a logit is NaN."""
    adapter_effect: float
    """How far the adapter moves the logits."""
    rounding_effect: float
    """How far rounding the merged weights to the stored dtype moves the logits; 0 in float32."""

    @property
    def allowed(self) -> float:
        """The largest difference that the check accepts, relative to the largest logit."""
        return max(FLOAT32_TOLERANCE, ROUNDING_SHARE * self.rounding_effect)

    def agrees(self) -> bool:
        return self.difference <= self.allowed  # False for NaN

    def describe(self, dtype: str) -> str:
        """Summarize the check in a few lines for the terminal."""
        prompts = "1 prompt" if self.num_prompts == 1 else f"{self.num_prompts} prompts"
        lines = [
            f"checked on {prompts}: the logits differ from those of the base with the adapter in {dtype} by "
            f"{self.difference:.1e} of the largest logit ({self.largest_logit:.1f}); at most {self.allowed:.1e} is "
            "allowed",
            f"the adapter moves the logits by {self.adapter_effect:.1e}",
        ]
        if self.rounding_effect:
            lines[-1] += f", rounding to {dtype} by {self.rounding_effect:.1e}"
        if self.rounding_effect > self.adapter_effect / 2:
            lines.append(f"warning: rounding to {dtype} hides much of the adapter's effect. Pass --dtype float32")
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
    """Compute both models' logits and compare them, with one model in memory at a time.

    If the stored weights are rounded, the expected logits come from a merge by PEFT in memory that is rounded in the
    same way, and that must match the base with the adapter before rounding. Rounding alone can move the logits as far
    as an adapter does, so a tolerance that allows for all of it would accept a merge that changes nothing.

    Args:
        located: The base and the adapter.
        merged: Folder of the merged model.
        tokenizer: Tokenizer of the merged model.
        num_prompts: How many of PROMPTS to use.
        written: The weights in the folder, with their dtypes.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        ModelError: if one of the models cannot be loaded, or PEFT cannot merge them.
    """
    ids = [tokenizer(prompt, return_tensors="pt").input_ids for prompt in PROMPTS[:num_prompts]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # from PEFT, for its own developers
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
    gc.collect()  # a model with an adapter refers to itself, so it would stay in memory while the next one is loaded
    folder = LocatedModel(base=str(merged), tokenizer=str(merged))
    after = logits(load_causal_lm(folder, dtype=torch.float32, trust_remote_code=trust_remote_code), ids)
    largest = float(adapted.abs().max()) or 1.0
    rounding = float((expected - adapted).abs().max())
    difference = torch.maximum((after - expected).abs().max(), inexact)  # NaN if one of the two is NaN
    return Comparison(
        num_prompts=len(ids),
        largest_logit=largest,
        difference=float(difference) / largest,
        adapter_effect=float((without - adapted).abs().max()) / largest,
        rounding_effect=rounding / largest,
    )


@torch.inference_mode()
def logits(model: PreTrainedModel | PeftModel, ids: Sequence[torch.Tensor]) -> torch.Tensor:
    """Logits of the tokens of all prompts, (tokens, vocabulary)."""
    return torch.cat([model(input_ids=one).logits[0] for one in ids])


def merge_in_memory(model: PeftModel) -> PreTrainedModel:
    """Merge the adapter with PEFT, after untying each adapted weight.

    Raises:
        ModelError: if PEFT cannot merge it.
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
            f"PEFT cannot merge the adapter in memory, which the check needs: {error}\n"
            "  Pass --check_prompts 0 to skip the check."
        ) from error
