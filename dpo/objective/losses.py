"""Losses on pairs: pure functions of log-probabilities, each with its equation.

Notation: pi is the policy and ref the reference; w is the chosen answer and l the rejected one; |w| is a length in
tokens; s is sigmoid, b is beta and e label_smoothing. A log-ratio is r = log pi - log ref, summed over the answer's
tokens, and h = score(r_w) - score(r_l), where score is that of the f-divergence: r itself for the reverse KL.

To add a loss: one function from Pairs and LossOptions to a loss for each pair, and one line in LOSSES.
"""

__all__ = ["DIVERGENCES", "LOSSES", "OF_DIVERGENCE", "Loss", "LossOptions", "Pairs"]

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

MAX_EXPONENT = 40.0
"""exp(40) is 2.4e17, whose square is a float32 still."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Some pairs as a loss sees them: each field (N,), float32 or float64, log-probabilities in nats, summed."""

    chosen: torch.Tensor
    """The policy's log-probabilities of the chosen answers."""
    rejected: torch.Tensor
    ref_chosen: torch.Tensor
    """The reference's. Zeros where there is no reference."""
    ref_rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    """Tokens of each answer, its end token among them."""
    rejected_tokens: torch.Tensor
    weights: torch.Tensor | None = None
    """What each pair counts. None: 1."""

    @classmethod
    def of(
        cls,
        logps: torch.Tensor,
        ref_logps: torch.Tensor,
        tokens: torch.Tensor,
        confidences: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> "Pairs":
        """From values of completions, chosen before rejected, pair after pair, (2 x N,) each; weights are (N,).

        With confidences, those of logps.Scored, pairs weigh as in WPO: the product of their two answers' (Zhou et al.
        2024, arXiv:2406.11827, Eq. 2), times their weights where there are any.
        """
        chosen, rejected = logps.view(-1, 2).unbind(dim=1)
        ref_chosen, ref_rejected = ref_logps.view(-1, 2).unbind(dim=1)
        chosen_tokens, rejected_tokens = tokens.view(-1, 2).unbind(dim=1)
        if confidences is not None:
            sureness = confidences.view(-1, 2).prod(dim=1)
            weights = sureness if weights is None else weights * sureness
        return cls(
            chosen=chosen,
            rejected=rejected,
            ref_chosen=ref_chosen,
            ref_rejected=ref_rejected,
            chosen_tokens=chosen_tokens,
            rejected_tokens=rejected_tokens,
            weights=weights,
        )

    def to_float64(self) -> "Pairs":
        """On the CPU, where there is float64 whatever the device; without a gradient."""
        values = {name: value for name, value in vars(self).items() if value is not None}
        return Pairs(**{name: value.detach().cpu().double() for name, value in values.items()})

    @property
    def chosen_ratios(self) -> torch.Tensor:
        return self.chosen - self.ref_chosen

    @property
    def rejected_ratios(self) -> torch.Tensor:
        return self.rejected - self.ref_rejected

    @property
    def chosen_means(self) -> torch.Tensor:
        """Log-probabilities a token."""
        return self.chosen / self.chosen_tokens

    @property
    def rejected_means(self) -> torch.Tensor:
        return self.rejected / self.rejected_tokens


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """Numbers that losses read. LOSSES says which loss reads which."""

    beta: float = 0.1
    label_smoothing: float = 0.0
    """Probability that a preference is the wrong way round."""
    logp_reduction: str = "mean"
    """mean, a token, as TRL does, or sum, as the DPO authors' code."""
    discopop_tau: float = 0.05
    simpo_gamma: float = 0.5
    f_divergence_type: str = "reverse_kl"
    f_alpha_divergence_coef: float = 0.5


def reverse_kl(ratios: torch.Tensor, options: LossOptions) -> torch.Tensor:
    """f'(t) of t = exp(r), without its constant: r."""
    return ratios


def forward_kl(ratios: torch.Tensor, options: LossOptions) -> torch.Tensor:
    """1 - 1/t."""
    return -torch.expm1((-ratios).clamp(max=MAX_EXPONENT))


def js_divergence(ratios: torch.Tensor, options: LossOptions) -> torch.Tensor:
    """log(2t / (t + 1))."""
    return math.log(2) + logsigmoid(ratios)


def alpha_divergence(ratios: torch.Tensor, options: LossOptions) -> torch.Tensor:
    """(t^(a-1) - 1) / (a - 1), as in TRL: the paper's alpha is 1 - a. a = 1 is the reverse KL, a = 0 the forward."""
    power = options.f_alpha_divergence_coef - 1
    if abs(power) < 1e-6:
        return ratios
    return torch.expm1((power * ratios).clamp(max=MAX_EXPONENT)) / power


DIVERGENCES: dict[str, Callable[[torch.Tensor, LossOptions], torch.Tensor]] = {
    "reverse_kl": reverse_kl,
    "forward_kl": forward_kl,
    "js_divergence": js_divergence,
    "alpha_divergence": alpha_divergence,
}
"""Scores of log-ratios under an f-divergence. Wang et al. 2023, arXiv:2309.16240, Table 1."""


def scores(pairs: Pairs, options: LossOptions) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the chosen and the rejected answers."""
    score = DIVERGENCES[options.f_divergence_type]
    return score(pairs.chosen_ratios, options), score(pairs.rejected_ratios, options)


def margins(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """The reward margin, b h."""
    chosen, rejected = scores(pairs, options)
    return options.beta * (chosen - rejected)


def sigmoid(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-(1 - e) log s(b h) - e log s(-b h).

    DPO: Rafailov et al. 2023, arXiv:2305.18290, Eq. 7. With e above 0 it is conservative DPO (Mitchell 2023, "A note
    on DPO with noisy preferences"). Equal log-ratios give log 2 = 0.6931.
    """
    margin, e = margins(pairs, options), options.label_smoothing
    return -(1 - e) * logsigmoid(margin) - e * logsigmoid(-margin)


def robust(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """(-(1 - e) log s(b h) + e log s(-b h)) / (1 - 2 e), unbiased where a share e is the wrong way round.

    Chowdhury et al. 2024, arXiv:2403.00409.
    """
    margin, e = margins(pairs, options), options.label_smoothing
    return (-(1 - e) * logsigmoid(margin) + e * logsigmoid(-margin)) / (1 - 2 * e)


def hinge(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """max(0, 1 - b h). SLiC, Zhao et al. 2023, arXiv:2305.10425; on log-ratios by RSO, Liu et al. 2023, 2309.06657."""
    return torch.relu(1 - margins(pairs, options))


def ipo(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """(h - 1 / (2 b))^2. Azar et al. 2023, arXiv:2310.12036, Eq. 17.

    h compares means a token or, by logp_reduction, sums.
    """
    chosen, rejected = scores(pairs, options)
    if options.logp_reduction == "mean":
        chosen, rejected = chosen / pairs.chosen_tokens, rejected / pairs.rejected_tokens
    return (chosen - rejected - 1 / (2 * options.beta)).square()


def sigmoid_norm(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-log s(b (score(r_w) / |w| - score(r_l) / |l|)). Tulu 3, Lambert et al. 2024, arXiv:2411.15124."""
    chosen, rejected = scores(pairs, options)
    return -logsigmoid(options.beta * (chosen / pairs.chosen_tokens - rejected / pairs.rejected_tokens))


def exo_pair(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """KL(p || q) of p = (s(b h), s(-b h)) and q = (1 - e, e). Ji et al. 2024, arXiv:2402.00856, Eq. 16."""
    margin, e = margins(pairs, options), options.label_smoothing
    won, lost = logsigmoid(margin), logsigmoid(-margin)
    return won.exp() * (won - math.log1p(-e)) + lost.exp() * (lost - math.log(e))


def nca_pair(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-log s(b r_w) - log s(-b r_w) / 2 - log s(-b r_l) / 2. Chen et al. 2024, arXiv:2402.05369."""
    chosen, rejected = options.beta * pairs.chosen_ratios, options.beta * pairs.rejected_ratios
    return -logsigmoid(chosen) - logsigmoid(-chosen) / 2 - logsigmoid(-rejected) / 2


def bco_pair(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-log s(b r_w) - log s(-b r_l), without the shift of the paper. Jung et al. 2024, arXiv:2404.04656."""
    return -logsigmoid(options.beta * pairs.chosen_ratios) - logsigmoid(-options.beta * pairs.rejected_ratios)


def sppo_hard(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """(r_w - 1 / (2 b))^2 + (r_l + 1 / (2 b))^2. Wu et al. 2024, arXiv:2405.00675, Eq. 4.7 with wins of 1 and 0."""
    target = 1 / (2 * options.beta)
    return (pairs.chosen_ratios - target).square() + (pairs.rejected_ratios + target).square()


def apo_zero(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """1 - s(b r_w) + s(b r_l), for chosen answers above the policy. D'Oosterlinck et al. 2024, 2408.06266, Eq. 7."""
    return torch.sigmoid(-options.beta * pairs.chosen_ratios) + torch.sigmoid(options.beta * pairs.rejected_ratios)


def apo_down(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """s(b r_w) + 1 - s(b (r_w - r_l)), for chosen answers below the policy. The same, Eq. 8."""
    chosen, rejected = options.beta * pairs.chosen_ratios, options.beta * pairs.rejected_ratios
    return torch.sigmoid(chosen) + torch.sigmoid(rejected - chosen)


def discopop(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-(1 - m) log s(b h) + m exp(-b h), m = s(b h / tau). Lu et al. 2024, arXiv:2406.08414, Eq. 5."""
    margin = margins(pairs, options)
    modulation = torch.sigmoid(margin / options.discopop_tau)
    return -(1 - modulation) * logsigmoid(margin) + modulation * torch.exp((-margin).clamp(max=MAX_EXPONENT))


def sft(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-log pi(w) / |w|, to add to another loss, as RPO does: Pang et al. 2024, arXiv:2404.19733, Eq. 1.

    A mean over pairs, where TRL's is one over the tokens of a micro-batch.
    """
    return -pairs.chosen_means


def simpo(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-log s(b (log pi(w) / |w| - log pi(l) / |l|) - gamma). Meng et al. 2024, arXiv:2405.14734, Eq. 6."""
    return -logsigmoid(options.beta * (pairs.chosen_means - pairs.rejected_means) - options.simpo_gamma)


def orpo(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-log pi(w) / |w| - b log s(log odds(w) - log odds(l)), odds = p / (1 - p) of p = exp(log pi / tokens).

    Hong et al. 2024, arXiv:2403.07691, Eqs. 4 to 7; b is the paper's lambda.
    """
    odds_ratio = log_odds(pairs.chosen_means) - log_odds(pairs.rejected_means)
    return -pairs.chosen_means - options.beta * logsigmoid(odds_ratio)


def log_odds(logps: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) from log p."""
    logps = logps.clamp(max=-1e-7)  # float32 rounds a memorized answer's to 0
    return logps - torch.log(-torch.expm1(logps))


def cpo(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-log s(b (log pi(w) - log pi(l))) - log pi(w) / |w|. Xu et al. 2024, arXiv:2401.08417."""
    return -logsigmoid(options.beta * (pairs.chosen - pairs.rejected)) - pairs.chosen_means


def aot(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """As sigmoid, on d = sort(log pi(w) - log pi(l)) - sort(log ref(w) - log ref(l)) instead of h.

    Melnyk et al. 2024, arXiv:2406.05882. Sorted over the pairs it is given: pairs of a micro-batch.
    """
    return of_sorted(pairs.chosen - pairs.rejected, pairs.ref_chosen - pairs.ref_rejected, options)


def aot_unpaired(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """As aot, on d = sort(r_w) - sort(r_l)."""
    return of_sorted(pairs.chosen_ratios, pairs.rejected_ratios, options)


def of_sorted(above: torch.Tensor, below: torch.Tensor, options: LossOptions) -> torch.Tensor:
    margin, e = options.beta * (above.sort().values - below.sort().values), options.label_smoothing
    return -(1 - e) * logsigmoid(margin) - e * logsigmoid(-margin)


@dataclass(frozen=True)
class Loss:
    """A loss and what it takes."""

    function: Callable[[Pairs, LossOptions], torch.Tensor]
    """Loss of each pair, (N,), not reduced."""
    reads: frozenset[str] = frozenset()
    """Fields of LossOptions, beta apart, which all but sft read."""
    needs_reference: bool = True
    averages: bool = False
    """Whether the reward that it shapes is a log-probability a token."""
    in_trl: bool = True
    """Whether trl.DPOTrainer has it, for --engine padded."""
    compares_pairs: bool = False
    """Whether a pair's loss depends on the other pairs."""


OF_DIVERGENCE = frozenset({"f_divergence_type", "f_alpha_divergence_coef"})
SMOOTHED = frozenset({"label_smoothing"})

LOSSES = {
    "sigmoid": Loss(sigmoid, SMOOTHED | OF_DIVERGENCE),
    "robust": Loss(robust, SMOOTHED | OF_DIVERGENCE),
    "hinge": Loss(hinge, OF_DIVERGENCE),
    "ipo": Loss(ipo, OF_DIVERGENCE | {"logp_reduction"}),
    "sigmoid_norm": Loss(sigmoid_norm, OF_DIVERGENCE),
    "exo_pair": Loss(exo_pair, SMOOTHED | OF_DIVERGENCE),
    "nca_pair": Loss(nca_pair),
    "bco_pair": Loss(bco_pair),
    "sppo_hard": Loss(sppo_hard),
    "apo_zero": Loss(apo_zero),
    "apo_down": Loss(apo_down),
    "discopop": Loss(discopop, OF_DIVERGENCE | {"discopop_tau"}),
    "aot": Loss(aot, SMOOTHED, compares_pairs=True),
    "aot_unpaired": Loss(aot_unpaired, SMOOTHED, compares_pairs=True),
    "sft": Loss(sft, needs_reference=False),
    "simpo": Loss(simpo, frozenset({"simpo_gamma"}), needs_reference=False, averages=True, in_trl=False),
    "orpo": Loss(orpo, needs_reference=False, averages=True, in_trl=False),
    "cpo": Loss(cpo, needs_reference=False, in_trl=False),
}
"""By the names that users give them, TRL's where it has them."""
