"""The penalty by hand, blind to padding."""

import math

import torch

from sonorant.losses.feature_penalty import feature_penalty


def test_it_is_each_items_mean_square() -> None:
    values = torch.randn(2, 5, 3)
    values[1, 2:] = math.nan
    penalty = feature_penalty(values, torch.tensor([5, 2]))
    torch.testing.assert_close(penalty, torch.stack([values[0].square().mean(), values[1, :2].square().mean()]))
