"""Weights of pairs by their score margins."""

import pytest
from datasets import Dataset

from dpo.errors import ConfigError
from dpo.objective.weighting import MarginWeights


def scored(*scores: tuple[float | None, float | None]) -> Dataset:
    return Dataset.from_dict({"score_chosen": [c for c, _ in scores], "score_rejected": [r for _, r in scores]})


def test_a_pair_is_weighted_by_its_margin_over_the_mean_and_by_1_without_scores():
    pairs = scored((4, 1), (8, 7), (None, None), (None, 3))
    by_margin = MarginWeights.of(pairs)
    assert by_margin.mean == 2
    assert by_margin.weigh(pairs).tolist() == [1.5, 0.5, 1.0, 1.0]


def test_held_out_pairs_are_weighted_by_the_mean_of_the_training_pairs():
    assert MarginWeights.of(scored((4, 0))).weigh(scored((2, 0), (12, 0))).tolist() == [0.5, 3.0]


def test_a_pair_whose_rejected_answer_scored_higher_has_weight_0():
    pairs = scored((3, 1), (1, 5))
    assert MarginWeights.of(pairs).weigh(pairs).tolist() == [2.0, 0.0]


def test_pairs_without_scores_cannot_be_weighted():
    with pytest.raises(ConfigError, match="no pair has both"):
        MarginWeights.of(scored((None, None), (1, None)))
    with pytest.raises(ConfigError, match="the largest of 2 margins is 0"):
        MarginWeights.of(scored((2, 2), (1, 4)))
