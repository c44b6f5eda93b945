"""Losses compared with values computed by hand, and their gradients with finite differences."""

import math
import re
from pathlib import Path

import pytest
import torch

from dpo.errors import ConfigError
from dpo.objective.losses import DIVERGENCES, LOSSES, LossOptions, Pairs
from dpo.objective.terms import PairObjective
from dpo.training.settings.objective import parse_losses

ROOT = Path(__file__).resolve().parents[2]


def pair(chosen: float, rejected: float, ref_chosen: float, ref_rejected: float, tokens: tuple[int, int]) -> Pairs:
    values = ([chosen, rejected], [ref_chosen, ref_rejected], list(tokens))
    return Pairs.of(*(torch.tensor(value, dtype=torch.float64) for value in values))


def s(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# r_w = 2 and r_l = -1, so h = 3. beta is 0.5, so b h = 1.5, b r_w = 1 and b r_l = -0.5. 4 and 5 tokens.
PAIR = pair(-8.0, -15.0, -10.0, -14.0, (4, 5))
OPTIONS = {"beta": 0.5}
OF_SMOOTHING = {"label_smoothing": 0.1}
E = 0.1


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("sigmoid", {}, -math.log(s(1.5))),
        ("sigmoid", OF_SMOOTHING, -0.9 * math.log(s(1.5)) - 0.1 * math.log(s(-1.5))),
        ("robust", OF_SMOOTHING, (-0.9 * math.log(s(1.5)) + 0.1 * math.log(s(-1.5))) / 0.8),
        ("hinge", {}, 0.0),
        ("hinge", {"beta": 0.1}, 0.7),
        ("ipo", {}, (2 / 4 + 1 / 5 - 1) ** 2),
        ("ipo", {"logp_reduction": "sum"}, (3 - 1) ** 2),
        ("sigmoid_norm", {}, -math.log(s(0.5 * (2 / 4 + 1 / 5)))),
        (
            "exo_pair",
            OF_SMOOTHING,
            s(1.5) * math.log(s(1.5) / 0.9) + s(-1.5) * math.log(s(-1.5) / 0.1),
        ),
        ("nca_pair", {}, -math.log(s(1)) - 0.5 * math.log(s(-1)) - 0.5 * math.log(s(0.5))),
        ("bco_pair", {}, -math.log(s(1)) - math.log(s(0.5))),
        ("sppo_hard", {}, (2 - 1) ** 2 + (-1 + 1) ** 2),
        ("apo_zero", {}, 1 - s(1) + s(-0.5)),
        ("apo_down", {}, s(1) + 1 - s(1.5)),
        ("discopop", {}, -(1 - s(30)) * math.log(s(1.5)) + s(30) * math.exp(-1.5)),
        ("discopop", {"discopop_tau": 2.0}, -(1 - s(0.75)) * math.log(s(1.5)) + s(0.75) * math.exp(-1.5)),
        ("aot", OF_SMOOTHING, -0.9 * math.log(s(1.5)) - 0.1 * math.log(s(-1.5))),
        ("aot_unpaired", {}, -math.log(s(1.5))),
        ("sft", {}, 2.0),
        ("simpo", {"simpo_gamma": 0.2}, -math.log(s(0.5 * (-2 + 3) - 0.2))),
        (
            "orpo",
            {},
            2 - 0.5 * math.log(s(math.log(math.exp(-2) / (1 - math.exp(-2)) / (math.exp(-3) / (1 - math.exp(-3)))))),
        ),
        ("cpo", {}, -math.log(s(0.5 * 7)) + 2),
        ("sigmoid", {"f_divergence_type": "forward_kl"}, -math.log(s(0.5 * (math.exp(1) - math.exp(-2))))),
        (
            "sigmoid",
            {"f_divergence_type": "js_divergence"},
            -math.log(s(0.5 * (math.log(s(2)) - math.log(s(-1))))),
        ),
        (
            "sigmoid",
            {"f_divergence_type": "alpha_divergence"},
            -math.log(s(0.5 * ((math.exp(-1) - 1) / -0.5 - (math.exp(0.5) - 1) / -0.5))),
        ),
    ],
)
def test_a_loss_has_the_value_of_its_equation(name: str, options: dict[str, object], expected: float) -> None:
    loss = LOSSES[name].function(PAIR, LossOptions(**OPTIONS | options))
    assert loss.tolist() == pytest.approx([expected], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_its_gradient_is_that_of_finite_differences(name: str) -> None:
    def loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        pairs = Pairs(
            chosen=chosen,
            rejected=rejected,
            ref_chosen=torch.tensor([-10.0, -30.0]).double(),
            ref_rejected=torch.tensor([-14.0, -20.0]).double(),
            chosen_tokens=torch.tensor([4.0, 9.0]).double(),
            rejected_tokens=torch.tensor([5.0, 3.0]).double(),
        )
        return LOSSES[name].function(pairs, LossOptions(beta=0.3, label_smoothing=0.1))

    chosen, rejected = torch.tensor([-8.0, -31.0]).double(), torch.tensor([-15.0, -18.0]).double()
    assert torch.autograd.gradcheck(loss, (chosen.requires_grad_(), rejected.requires_grad_()))


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("logps", [(-900.0, -100.0), (-100.0, -900.0)], ids=["fell", "rose"])
def test_loss_and_gradient_are_finite_at_extreme_log_ratios(
    name: str, divergence: str, logps: tuple[float, float]
) -> None:
    chosen, rejected = (torch.tensor([value], requires_grad=True) for value in logps)
    pairs = Pairs(
        chosen=chosen,
        rejected=rejected,
        ref_chosen=torch.tensor([-500.0]),
        ref_rejected=torch.tensor([-500.0]),
        chosen_tokens=torch.tensor([2.0]),
        rejected_tokens=torch.tensor([3.0]),
    )
    loss = LOSSES[name].function(pairs, LossOptions(label_smoothing=0.1, f_divergence_type=divergence))
    loss.sum().backward()
    for value in (loss, *(leaf.grad for leaf in (chosen, rejected) if leaf.grad is not None)):
        assert value.isfinite().all()


def test_a_memorized_answer_has_finite_odds() -> None:
    chosen = torch.tensor([0.0], requires_grad=True)
    nothing, one = torch.zeros(1), torch.ones(1)
    pairs = Pairs(
        chosen=chosen,
        rejected=-one,
        ref_chosen=nothing,
        ref_rejected=nothing,
        chosen_tokens=one,
        rejected_tokens=one,
    )
    loss = LOSSES["orpo"].function(pairs, LossOptions())
    loss.sum().backward()
    assert loss.isfinite().all() and chosen.grad is not None and chosen.grad.isfinite().all()


def test_aot_compares_sorted_log_ratios() -> None:
    # chosen - rejected is 7 and -3 under the policy, 4 and 6 under the reference. Sorted: -3 with 4, and 7 with 6.
    logps, ref_logps = [-8.0, -15.0, -10.0, -7.0], [-10.0, -14.0, -9.0, -15.0]
    pairs = Pairs.of(torch.tensor(logps), torch.tensor(ref_logps), torch.ones(4))
    loss = LOSSES["aot"].function(pairs, LossOptions(beta=0.5))
    assert loss.tolist() == pytest.approx([-math.log(s(0.5 * (-3 - 4))), -math.log(s(0.5 * (7 - 6)))])
    # r_w: 2 and -1; r_l: -1 and 8.
    loss = LOSSES["aot_unpaired"].function(pairs, LossOptions(beta=0.5))
    assert loss.tolist() == pytest.approx([-math.log(s(0.0)), -math.log(s(0.5 * (2 - 8)))])


def test_a_pair_is_weighted_by_the_confidence_in_both_answers() -> None:
    confidences = torch.tensor([0.5, 0.8]).double()
    values = torch.tensor([[-8.0, -15.0], [-10.0, -14.0], [4.0, 5.0]]).double()
    objective = PairObjective(terms=((LOSSES["sigmoid"], 1.0),), options=LossOptions(beta=0.5), wants_confidences=True)
    assert objective.loss(Pairs.of(*values, confidences)).item() == pytest.approx(-0.4 * math.log(s(1.5)))


def test_an_objective_adds_its_terms_with_their_weights() -> None:
    objective = PairObjective(terms=((LOSSES["sigmoid"], 2.0), (LOSSES["sft"], 0.5)), options=LossOptions(beta=0.5))
    assert objective.loss(PAIR).item() == pytest.approx(-2 * math.log(s(1.5)) + 0.5 * 2)
    assert [reward.item() for reward in objective.rewards(PAIR)] == [1.0, -0.5]


def test_rewards_are_means_over_tokens_if_the_loss_compares_means() -> None:
    objective = PairObjective(terms=((LOSSES["simpo"], 1.0),), options=LossOptions(beta=2.0))
    assert not objective.needs_reference
    without = pair(-8.0, -15.0, 0.0, 0.0, (4, 5))
    assert [reward.item() for reward in objective.rewards(without)] == [-4.0, -6.0]


@pytest.mark.parametrize(
    ("names", "averages"),
    [
        (["simpo"], True),
        (["orpo", "sft"], True),
        (["sigmoid", "orpo"], False),
        (["simpo", "sigmoid_norm"], False),
        (["cpo"], False),
        (["sft"], False),
        (["ipo"], False),
    ],
)
def test_rewards_are_sums_unless_every_loss_compares_means(names: list[str], averages: bool) -> None:
    objective = PairObjective(terms=tuple((LOSSES[name], 1.0) for name in names), options=LossOptions())
    assert objective.averages is averages


def test_terms_are_names_with_or_without_a_weight() -> None:
    assert parse_losses(["sigmoid", "sft:0.2"]) == (["sigmoid", "sft"], [1.0, 0.2])


@pytest.mark.parametrize("term", ["sft:", "sft:x", "sft:-1", "sft:0", "sft:nan", "sft:inf"])
def test_a_weight_that_is_not_a_number_above_0_is_refused(term: str) -> None:
    with pytest.raises(ConfigError, match="weight above 0"):
        parse_losses(["sigmoid", term])


def test_losses_are_separated_by_spaces_not_commas() -> None:
    with pytest.raises(ConfigError, match="separate several losses with spaces"):
        parse_losses(["ipo,sft"])


def test_a_loss_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="'sft' is named twice"):
        parse_losses(["sft", "sigmoid", "sft:2"])


def test_the_table_in_the_docs_lists_the_options_that_each_loss_reads() -> None:
    table = {}
    for line in (ROOT / "docs" / "losses.md").read_text(encoding="utf-8").splitlines():
        name, *_, reads, reference = re.split(r"(?<!\\)\|", line.strip("|")) if line.startswith("| `") else [""] * 3
        options = {"f_divergence_type", "f_alpha_divergence_coef"} if re.search(r"\bf\b", reads) else set()
        table[name.strip(" `")] = (options | set(re.findall(r"`(\w+)`", reads)), reference.strip() == "yes")
    for name, loss in LOSSES.items():
        assert table[name] == (loss.reads, loss.needs_reference), name
