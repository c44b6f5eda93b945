"""Held-out pairs: how often, and by how much, a model prefers the chosen answer.

With a reference, the reward of an answer is beta x (the model's log-probability - the reference's), the implicit reward
of DPO (Rafailov et al. 2023, arXiv:2305.18290, section 5.1). Without one, the model's own log-probabilities are
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
"""Some pairs -> log-probabilities of chosen and rejected, summed, nats, float32 (pairs, 2)."""


def pair_logps(
    model: PreTrainedModel | PeftModel, pairs: Dataset, *, pairs_at_once: int, progress: bool = False
) -> torch.Tensor:
    """Log-probabilities of both answers, summed over their tokens, nats, float64 (pairs, 2), on the CPU.

    Args:
        model: On its device. Its attention is the packed engine's from here on, where that computes.
        pairs: Pairs as token ids, at least one.
        pairs_at_once: Pairs in a pack, on average.
        progress: Whether to show a bar.
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
    """Packed, as training computes, or plain where the architecture has other ways or gives the probe other numbers."""
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
    """What measures need to know of pairs, in their order."""

    keys: Sequence[Hashable]
    """What a pair is known by: the same for every model, whatever its tokenizer, and no two alike."""
    lengths: torch.Tensor
    """Tokens of chosen and rejected, int64 (pairs, 2)."""

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
        """How much more the chosen answer has, by the pair's key. Scores are float64 (pairs, 2)."""
        return dict(zip(self.keys, (scores[:, 0] - scores[:, 1]).tolist(), strict=True))

    def accuracies(self, name: str, margins: Mapping[Hashable, float]) -> dict[str, Measure]:
        """Shares of margins above 0, over all pairs and by which answer is longer, as far as there are such pairs."""
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
    """What a model makes of pairs, by the name of the row.

    A pair counts as right where the chosen answer has strictly more, as in the trainer's rewards/accuracies: equal
    rewards, as of a model that is its own reference, are wrong.

    Args:
        pairs: Prepared pairs, at least one.
        logps: The model's, nats, float64 (pairs, 2): chosen and rejected.
        ref_logps: The reference's.
        beta: Factor of the rewards, > 0.
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
