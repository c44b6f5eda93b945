"""Measures on held-out pairs how often, and by how much, a model prefers the chosen answer.

With a reference model, the reward of an answer is beta x (the model's log-probability - the reference's), the implicit
reward of DPO (Rafailov et al. 2023, arXiv:2305.18290, section 5.1). Without one, the model's own log-probabilities are
compared, summed and per token.
"""

__all__ = ["pair_logps", "pair_measures"]

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from tqdm import tqdm
from transformers import PreTrainedModel

from dpo.engine.attention import choose_backend
from dpo.engine.forward import TOLERANCE, PackedForward, plain_token_logps
from dpo.engine.loading import count_tokens
from dpo.engine.packing import Pair, pack_pairs
from dpo.engine.planning import plan_all
from dpo.engine.support import why_padded_by_architecture
from dpo.evaluation.measures import Measure, accuracy, mean
from dpo.models.attention import attention_of

TRAITS = ("source", "row", "chosen", "rejected", "chosen_ids", "rejected_ids")
"""Columns of a prepared pair that its measures need."""
Score = Callable[[Sequence[Pair]], torch.Tensor]
"""Pairs -> log-probabilities of chosen and rejected, summed over tokens, nats, float32 (pairs, 2)."""


def pair_logps(
    model: PreTrainedModel | PeftModel, pairs: Dataset, *, pairs_at_once: int, progress: bool = False
) -> torch.Tensor:
    """Compute the log-probabilities of both answers of each pair.

    Args:
        model: The model, on its device. If the packed engine computes the pairs, the model has the packed engine's
            attention afterwards.
        pairs: Pairs as token ids, at least one.
        pairs_at_once: Average number of pairs in a pack.
        progress: Whether to show a progress bar.

    Returns:
        Log-probabilities of chosen and rejected, summed over tokens, nats, float64 (pairs, 2), on the CPU.
    """
    tokens = count_tokens(pairs)
    score = choose_score(model.eval(), pairs[min(range(len(tokens)), key=tokens.__getitem__)])
    logps = torch.empty(len(tokens), 2, dtype=torch.float64)
    with tqdm(total=len(tokens), desc="pairs", unit=" pairs", disable=not progress, leave=False) as bar:
        for (batch,) in plan_all(tokens, pairs_at_once=pairs_at_once, world_size=1):
            rows = list(batch.pairs)
            logps[rows] = score(pairs.select(rows).to_list()).double().cpu()
            bar.update(len(rows))
    return logps


def choose_score(model: PreTrainedModel | PeftModel, probe: dict[str, Any]) -> Score:
    """Choose the packed engine, or the model's plain forward pass if packed does not support the model.

    Packed is also refused if it gives other numbers than the plain forward pass on the pair `probe`.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model

    def plain(pairs: Sequence[Pair]) -> torch.Tensor:
        answers = [logps for pair in pairs for logps in plain_token_logps(model, pair, base.device)]
        return torch.stack([logps.sum() for logps in answers]).view(-1, 2)

    is_prompt = isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning
    if is_prompt or why_padded_by_architecture(base) is not None:
        return plain
    forward = PackedForward(base, choose_backend(attention_of(base)))

    def packed(pairs: Sequence[Pair]) -> torch.Tensor:
        return forward.logps(model, pack_pairs(pairs, range(len(pairs))).to(base.device)).view(-1, 2)

    tolerance = TOLERANCE[base.dtype]
    if torch.allclose(packed([probe])[0], forward.plain_logps(model, probe), rtol=tolerance, atol=tolerance):
        return packed
    base.set_attn_implementation(forward.ordinary)
    return plain


@dataclass(frozen=True, kw_only=True)
class PairTraits:
    """The properties of pairs that the measures need, in the order of the pairs."""

    keys: Sequence[Hashable]
    """A unique key per pair, the same for every model, whatever its tokenizer."""
    lengths: torch.Tensor
    """Number of tokens of chosen and rejected, int64 (pairs, 2)."""

    @classmethod
    def of(cls, pairs: Dataset) -> "PairTraits":
        seen: Counter[tuple[Any, ...]] = Counter()
        keys: list[Hashable] = []
        lengths = []
        for pair in pairs.select_columns(list(TRAITS)):
            content = (pair["source"], pair["row"], pair["chosen"], pair["rejected"])
            seen[content] += 1
            keys.append(hash((content, seen[content])))
            lengths.append([len(pair["chosen_ids"]), len(pair["rejected_ids"])])
        return cls(keys=keys, lengths=torch.tensor(lengths))

    def margins(self, scores: torch.Tensor) -> dict[Hashable, float]:
        """Key of a pair -> score of chosen minus score of rejected. Scores are float64 (pairs, 2)."""
        return dict(zip(self.keys, (scores[:, 0] - scores[:, 1]).tolist(), strict=True))

    def accuracies(self, name: str, margins: Mapping[Hashable, float]) -> dict[str, Measure]:
        """Shares of margins above 0, over all pairs and split by which answer is longer. Empty splits are left out."""
        is_right = {key: margin > 0 for key, margin in margins.items()}
        split: dict[str, dict[Hashable, bool]] = {"chosen longer": {}, "chosen shorter": {}, "as long": {}}
        for key, (chosen, rejected) in zip(self.keys, self.lengths.tolist(), strict=True):
            which = "chosen longer" if chosen > rejected else "chosen shorter" if chosen < rejected else "as long"
            split[which][key] = is_right[key]
        parts = {f"pairs, {name}, {which}": accuracy(found) for which, found in split.items() if found}
        return {f"pairs, {name}": accuracy(is_right)} | parts


def pair_measures(
    pairs: Dataset, logps: torch.Tensor, ref_logps: torch.Tensor | None = None, *, beta: float
) -> dict[str, Measure]:
    """Measure a model on pairs.

    A pair counts as right only if the chosen answer has the strictly higher reward, as in the trainer's
    rewards/accuracies. Equal rewards count as wrong; a model that is its own reference has only equal rewards.

    Args:
        pairs: Prepared pairs, at least one.
        logps: The model's log-probabilities of chosen and rejected, nats, float64 (pairs, 2).
        ref_logps: Those of the reference model, in the same form.
        beta: Scale factor of the rewards, dimensionless, > 0.

    Returns:
        Name of a table row -> measure.
    """
    traits = PairTraits.of(pairs)
    if ref_logps is not None:
        margins = traits.margins(beta * (logps - ref_logps))
        return {
            **traits.accuracies("reward accuracy", margins),
            "pairs, reward margin": mean(margins),
            "pairs, equal rewards, counted as wrong": accuracy({key: margin == 0 for key, margin in margins.items()}),
        }
    return {
        **traits.accuracies("accuracy by summed log p, no reference", traits.margins(logps)),
        **traits.accuracies("accuracy by log p per token, no reference", traits.margins(logps / traits.lengths)),
    }
