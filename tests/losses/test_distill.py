"""Losses towards a teacher: torch's own norms and losses where there are some, formulas by hand elsewhere."""

import math

import pytest
import torch
from torch.nn import functional

from sonorant.core.errors import ConfigError
from sonorant.losses.distill import byol_loss, dino_loss, instance_normalised, layer_targets, regression_loss

LENGTHS = torch.tensor([7, 4])
VALID = torch.arange(7) < LENGTHS[:, None]


def test_instance_norm_is_torchs_on_each_item_alone() -> None:
    torch.manual_seed(0)
    values = torch.randn(2, 7, 5) * 3 + 2
    values[1, 4:] = math.nan
    ours = instance_normalised(values, LENGTHS)
    for item, length in enumerate(LENGTHS.tolist()):
        theirs = functional.instance_norm(values[item : item + 1, :length].transpose(1, 2)).transpose(1, 2)
        torch.testing.assert_close(ours[item, :length], theirs[0], atol=1e-5, rtol=1e-4)
        assert not ours[item, length:].any()


def test_targets_are_the_mean_of_the_top_layers() -> None:
    layers = [torch.randn(2, 7, 5) for _ in range(4)]
    expected = (instance_normalised(layers[2], LENGTHS) + instance_normalised(layers[3], LENGTHS)) / 2
    torch.testing.assert_close(layer_targets(layers, LENGTHS, 2), expected)
    with pytest.raises(ConfigError, match="mean of 5 layers, and there are 4"):
        layer_targets(layers, LENGTHS, 5)
    with pytest.raises(ConfigError, match="the last 2 differ in shape, 4 × 5 and 7 × 5: lower top_layers"):
        layer_targets([layers[0], layers[1][:, :4]], LENGTHS, 2)


def test_regression() -> None:
    torch.manual_seed(0)
    predictions, targets = torch.randn(6, 16, requires_grad=True), torch.randn(6, 16)
    loss = regression_loss(predictions, targets)
    torch.testing.assert_close(loss.total, functional.mse_loss(predictions, targets, reduction="sum") / 4)
    assert float(loss.count) == 6
    smooth = regression_loss(predictions, targets, "smooth_l1", beta=0.5, scale=1.0).total
    torch.testing.assert_close(smooth, functional.smooth_l1_loss(predictions, targets, beta=0.5, reduction="sum"))
    with pytest.raises(ConfigError, match="mse or smooth_l1"):
        regression_loss(predictions, targets, "l3")


def test_dino_is_a_cross_entropy_with_a_centred_sharp_teacher() -> None:
    torch.manual_seed(0)
    student, teacher, center = torch.randn(2, 7, 9), torch.randn(2, 7, 9), torch.randn(9)
    loss = dino_loss(student, teacher, center, VALID)
    expected = functional.cross_entropy(
        student[VALID] / 0.1, ((teacher[VALID] - center) / 0.04).softmax(-1), reduction="sum"
    )
    torch.testing.assert_close(loss.total, expected)
    assert int(loss.count) == 11
    # A teacher that prefers one code everywhere says nothing once that preference is the centre.
    same = center.expand(2, 7, 9)
    flat = dino_loss(student, same, center, VALID).mean
    expected = functional.cross_entropy(student[VALID] / 0.1, torch.full((11, 9), 1 / 9))
    torch.testing.assert_close(flat, expected)


def test_byol_is_a_distance_of_unit_vectors() -> None:
    torch.manual_seed(0)
    predictions, targets = torch.randn(2, 7, 9), torch.randn(2, 7, 9)
    predictions[1, 4:] = 1e20
    expected = (functional.normalize(predictions, dim=-1) - functional.normalize(targets, dim=-1)).square().sum(-1)
    torch.testing.assert_close(byol_loss(predictions, targets, VALID).total, expected[VALID].sum())
    assert float(byol_loss(targets, targets * 3, VALID).total) == pytest.approx(0, abs=1e-5)
