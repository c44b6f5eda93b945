"""Losses on pairs: pure functions of log-probabilities, each with its equation.

Notation: pi is the policy and ref the reference model; w is the chosen answer and l the rejected one; |w| is a length
in tokens; s is the sigmoid, b is beta and e is label_smoothing. A log-ratio is r = log pi - log ref, summed over the
answer's tokens. h = score(r_w) - score(r_l), where the f-divergence defines score: it is r itself for the reverse KL.

Each loss takes N pairs and the options, and returns the loss of each pair, (N,), not reduced. The examples are for one
pair with log pi = -8 and -15, log ref = -10 and -14, and 4 and 5 tokens. So r_w = 2, r_l = -1 and h = 3. b is 0.5, and
the other options have their defaults unless the example says otherwise.

To add a loss, write a function from Pairs and LossOptions to the loss of each pair, and add a line to LOSSES.
"""

__all__ = ["DIVERGENCES", "LOSSES", "OF_DIVERGENCE", "Loss", "LossOptions", "Pairs"]

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

MAX_EXPONENT = 40.0
"""Largest exponent. exp(40) is 2.4e17, and its square still fits into float32."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """N pairs as input of a loss. Each field is (N,), float32 or float64. Log-probabilities are sums, in nats."""

    chosen: torch.Tensor
    """Log-probabilities of the chosen answers under the policy."""
    rejected: torch.Tensor
    ref_chosen: torch.Tensor
    """Log-probabilities of the chosen answers under the reference model. Zeros if there is none."""
    ref_rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    """Length of each chosen answer in tokens, including its end token."""
    rejected_tokens: torch.Tensor
    weights: torch.Tensor | None = None
    """Weight of each pair in the loss. None: 1."""

    @classmethod
    def of(
        cls,
        logps: torch.Tensor,
        ref_logps: torch.Tensor,
        tokens: torch.Tensor,
        confidences: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> "Pairs":
        """Build pairs from values of completions, chosen before rejected, pair after pair.

        With confidences, pairs are weighted as in WPO: by the product of the confidences in their two answers, times
        their weights if there are any. Zhou et al. 2024, arXiv:2406.11827, Eq. 2.

        Args:
            logps: Log-probabilities under the policy, summed, nats, float32 or float64 (2 x N,).
            ref_logps: Log-probabilities under the reference model, summed, nats, (2 x N,).
            tokens: Length of each completion in tokens, (2 x N,).
            confidences: As in dpo.engine.logps.Scored, (2 x N,). None: pairs are not weighted by confidence.
            weights: Weight of each pair in the loss, (N,). None: 1.
        """
        chosen, rejected = logps.view(-1, 2).unbind(dim=1)
        ref_chosen, ref_rejected = ref_logps.view(-1, 2).unbind(dim=1)
        chosen_tokens, rejected_tokens = tokens.view(-1, 2).unbind(dim=1)
        if confidences is not None:
            confidence = confidences.view(-1, 2).prod(dim=1)
            weights = confidence if weights is None else weights * confidence
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
        """Return a detached copy in float64. It is on the CPU, because some devices do not support float64."""
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
        """Mean log-probability per token, nats, (N,)."""
        return self.chosen / self.chosen_tokens

    @property
    def rejected_means(self) -> torch.Tensor:
        return self.rejected / self.rejected_tokens


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """Options of the losses. LOSSES lists which loss reads which option."""

    beta: float = 0.1
    """Strength of the KL penalty, dimensionless, > 0."""
    label_smoothing: float = 0.0
    """Probability that chosen and rejected of a pair are swapped."""
    logp_reduction: str = "mean"
    """What ipo compares: "mean", log-ratios per token, as in TRL; or "sum", their sums, as in the DPO authors' code."""
    discopop_tau: float = 0.05
    simpo_gamma: float = 0.5
    f_divergence_type: str = "reverse_kl"
    f_alpha_divergence_coef: float = 0.5


def reverse_kl(ratios: torch.Tensor, options: LossOptions) -> torch.Tensor:
    """f'(t) at t = exp(r), without its constant: r."""
    return ratios


def forward_kl(ratios: torch.Tensor, options: LossOptions) -> torch.Tensor:
    """1 - 1/t."""
    return -torch.expm1((-ratios).clamp(max=MAX_EXPONENT))


def js_divergence(ratios: torch.Tensor, options: LossOptions) -> torch.Tensor:
    """log(2t / (t + 1))."""
    return math.log(2) + logsigmoid(ratios)


def alpha_divergence(ratios: torch.Tensor, options: LossOptions) -> torch.Tensor:
    """(t^(a-1) - 1) / (a - 1), as in TRL. The paper's alpha is 1 - a. a = 1 is the reverse KL, a = 0 the forward KL."""
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
"""Score function of log-ratios for each f-divergence. Wang et al. 2023, arXiv:2309.16240, Table 1."""


def scores(pairs: Pairs, options: LossOptions) -> tuple[torch.Tensor, torch.Tensor]:
    """Return score(r_w) and score(r_l), (N,) each."""
    score = DIVERGENCES[options.f_divergence_type]
    return score(pairs.chosen_ratios, options), score(pairs.rejected_ratios, options)


def margins(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """Return the reward margins b h, (N,)."""
    chosen, rejected = scores(pairs, options)
    return options.beta * (chosen - rejected)


def sigmoid(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-(1 - e) log s(b h) - e log s(-b h).

    DPO: Rafailov et al. 2023, arXiv:2305.18290, Eq. 7. With e > 0 it is conservative DPO (Mitchell 2023, "A note on DPO
    with noisy preferences"). Example: 0.2014, and 0.3514 with e = 0.1. Equal log-ratios give log 2 = 0.6931.
    """
    margin, e = margins(pairs, options), options.label_smoothing
    return -(1 - e) * logsigmoid(margin) - e * logsigmoid(-margin)


def robust(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """(-(1 - e) log s(b h) + e log s(-b h)) / (1 - 2 e). Unbiased if a fraction e of the pairs is swapped.

    Chowdhury et al. 2024, arXiv:2403.00409. Example: 0.0139 with e = 0.1.
    """
    margin, e = margins(pairs, options), options.label_smoothing
    return (-(1 - e) * logsigmoid(margin) + e * logsigmoid(-margin)) / (1 - 2 * e)


def hinge(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """max(0, 1 - b h).

    SLiC: Zhao et al. 2023, arXiv:2305.10425. RSO applies it to log-ratios: Liu et al. 2023, arXiv:2309.06657.
    Example: 0, and 0.7 with b = 0.1.
    """
    return torch.relu(1 - margins(pairs, options))


def ipo(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """(h - 1 / (2 b))^2. Azar et al. 2023, arXiv:2310.12036, Eq. 17.

    h compares scores per token or, with logp_reduction "sum", their sums. Example: 0.09, and 4 for sums.
    """
    chosen, rejected = scores(pairs, options)
    if options.logp_reduction == "mean":
        chosen, rejected = chosen / pairs.chosen_tokens, rejected / pairs.rejected_tokens
    return (chosen - rejected - 1 / (2 * options.beta)).square()


def sigmoid_norm(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-log s(b (score(r_w) / |w| - score(r_l) / |l|)).

    Tulu 3: Lambert et al. 2024, arXiv:2411.15124. Example: 0.5334.
    """
    chosen, rejected = scores(pairs, options)
    return -logsigmoid(options.beta * (chosen / pairs.chosen_tokens - rejected / pairs.rejected_tokens))


def exo_pair(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """KL(p || q) of p = (s(b h), s(-b h)) and q = (1 - e, e), for e > 0.

    Ji et al. 2024, arXiv:2402.00856, Eq. 16. Example: 0.0311 with e = 0.1.
    """
    margin, e = margins(pairs, options), options.label_smoothing
    won, lost = logsigmoid(margin), logsigmoid(-margin)
    return won.exp() * (won - math.log1p(-e)) + lost.exp() * (lost - math.log(e))


def nca_pair(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-log s(b r_w) - log s(-b r_w) / 2 - log s(-b r_l) / 2. Chen et al. 2024, arXiv:2402.05369. Example: 1.2069."""
    chosen, rejected = options.beta * pairs.chosen_ratios, options.beta * pairs.rejected_ratios
    return -logsigmoid(chosen) - logsigmoid(-chosen) / 2 - logsigmoid(-rejected) / 2


def bco_pair(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-log s(b r_w) - log s(-b r_l), without the paper's shift. Jung et al. 2024, arXiv:2404.04656. Example: 0.7873."""
    return -logsigmoid(options.beta * pairs.chosen_ratios) - logsigmoid(-options.beta * pairs.rejected_ratios)


def sppo_hard(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """(r_w - 1 / (2 b))^2 + (r_l + 1 / (2 b))^2.

    Wu et al. 2024, arXiv:2405.00675, Eq. 4.7 with win probabilities 1 and 0. Example: 1.
    """
    target = 1 / (2 * options.beta)
    return (pairs.chosen_ratios - target).square() + (pairs.rejected_ratios + target).square()


def apo_zero(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """1 - s(b r_w) + s(b r_l). For chosen answers that are better than those of the policy.

    D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 7. Example: 0.6465.
    """
    return torch.sigmoid(-options.beta * pairs.chosen_ratios) + torch.sigmoid(options.beta * pairs.rejected_ratios)


def apo_down(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """s(b r_w) + 1 - s(b (r_w - r_l)). For chosen answers that are worse than those of the policy.

    D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 8. Example: 0.9135.
    """
    chosen, rejected = options.beta * pairs.chosen_ratios, options.beta * pairs.rejected_ratios
    return torch.sigmoid(chosen) + torch.sigmoid(rejected - chosen)


def discopop(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-(1 - m) log s(b h) + m exp(-b h), m = s(b h / tau).

    Lu et al. 2024, arXiv:2406.08414, Eq. 5. Example: 0.2231.
    """
    margin = margins(pairs, options)
    modulation = torch.sigmoid(margin / options.discopop_tau)
    return -(1 - modulation) * logsigmoid(margin) + modulation * torch.exp((-margin).clamp(max=MAX_EXPONENT))


def sft(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-log pi(w) / |w|. RPO adds it to another loss: Pang et al. 2024, arXiv:2404.19733, Eq. 1.

    The run takes its mean over pairs. TRL takes the mean over the tokens of a micro-batch. Example: 2.
    """
    return -pairs.chosen_means


def simpo(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-log s(b (log pi(w) / |w| - log pi(l) / |l|) - gamma).

    Meng et al. 2024, arXiv:2405.14734, Eq. 6. Example: 0.6931.
    """
    return -logsigmoid(options.beta * (pairs.chosen_means - pairs.rejected_means) - options.simpo_gamma)


def orpo(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-log pi(w) / |w| - b log s(log odds(w) - log odds(l)), odds = p / (1 - p) of p = exp(log pi / tokens).

    Hong et al. 2024, arXiv:2403.07691, Eqs. 4 to 7; b is the paper's lambda. Example: 2.1444.
    """
    odds_ratio = log_odds(pairs.chosen_means) - log_odds(pairs.rejected_means)
    return -pairs.chosen_means - options.beta * logsigmoid(odds_ratio)


def log_odds(logps: torch.Tensor) -> torch.Tensor:
    """Return log(p / (1 - p)), given log p."""
    logps = logps.clamp(max=-1e-7)  # float32 rounds log p of a memorized answer to 0
    return logps - torch.log(-torch.expm1(logps))


def cpo(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """-log s(b (log pi(w) - log pi(l))) - log pi(w) / |w|. Xu et al. 2024, arXiv:2401.08417. Example: 2.0297."""
    return -logsigmoid(options.beta * (pairs.chosen - pairs.rejected)) - pairs.chosen_means


def aot(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """Like sigmoid, with d = sort(log pi(w) - log pi(l)) - sort(log ref(w) - log ref(l)) in place of h.

    Melnyk et al. 2024, arXiv:2406.05882. The sort is over the pairs of a micro-batch. Example: 0.2014.
    """
    return sigmoid_of_sorted(pairs.chosen - pairs.rejected, pairs.ref_chosen - pairs.ref_rejected, options)


def aot_unpaired(pairs: Pairs, options: LossOptions) -> torch.Tensor:
    """Like aot, with d = sort(r_w) - sort(r_l). Example: 0.2014."""
    return sigmoid_of_sorted(pairs.chosen_ratios, pairs.rejected_ratios, options)


def sigmoid_of_sorted(above: torch.Tensor, below: torch.Tensor, options: LossOptions) -> torch.Tensor:
    margin, e = options.beta * (above.sort().values - below.sort().values), options.label_smoothing
    return -(1 - e) * logsigmoid(margin) - e * logsigmoid(-margin)


@dataclass(frozen=True)
class Loss:
    """A loss and its properties."""

    function: Callable[[Pairs, LossOptions], torch.Tensor]
    """Function that returns the loss of each pair, (N,), not reduced."""
    reads: frozenset[str] = frozenset()
    """Fields of LossOptions that the loss reads, except beta, which every loss but sft reads."""
    needs_reference: bool = True
    """Whether the loss reads the log-probabilities of the reference model."""
    averages: bool = False
    """Whether the reward of an answer is a mean over its tokens instead of a sum."""
    in_trl: bool = True
    """Whether trl.DPOTrainer has the loss, so that --engine padded can compute it."""
    compares_pairs: bool = False
    """Whether the loss of a pair depends on the other pairs."""


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
"""The losses by name. A loss that TRL has is under TRL's name."""
