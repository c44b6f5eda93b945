"""Losses against values worked by hand."""

import math

import pytest
import torch

from dpo.training.losses import sigmoid_loss


@pytest.mark.parametrize(
    ("logps", "expected"),
    [
        ((-10.0, -20.0, -10.0, -20.0), math.log(2)),
        # logratio 12 against 10: -log sigmoid(0.1 x 2) = log(1 + e^-0.2)
        ((-9.0, -21.0, -10.0, -20.0), 0.598139),
        ((-11.0, -19.0, -10.0, -20.0), 0.798139),
    ],
)
def test_the_dpo_loss_is_that_of_its_equation(logps, expected):
    loss = sigmoid_loss(*(torch.tensor([value]) for value in logps), beta=0.1)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
