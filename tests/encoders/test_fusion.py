"""Fusions of two streams: batches and padding, time, silence of the second."""

import pytest
import torch
from tests.encoders.test_tap import invariant, layers
from torch import nn

from sonorant.core.errors import ConfigError
from sonorant.core.types import Features
from sonorant.encoders.fusion import FUSIONS, CrossAttentionFusion, FramewiseAddition, build_fusion


@pytest.mark.parametrize("name", FUSIONS)
def test_a_fusion_keeps_items_apart(name: str) -> None:
    torch.manual_seed(0)
    fusion = build_fusion(name, (5, 6), 8)

    def run(lengths: list[int], extra: int) -> Features:
        first = layers(1, 5, [2 * length for length in lengths], 100.0, extra)[0]
        second = layers(1, 6, [length + length % 2 for length in lengths], 50.0, 2 * extra)[0]
        return fusion(first, second)

    invariant(run)
    (run([9, 4], 0).values * torch.randn(8)).sum().backward()
    for label, parameter in fusion.named_parameters():
        assert parameter.grad is not None, label
        assert 0 < parameter.grad.abs().max() < torch.inf, label


def test_addition_gives_the_frames_that_both_have_and_keeps_time() -> None:
    torch.manual_seed(0)
    fusion = FramewiseAddition((1, 1), 4, (100.0, 50.0), 25.0)
    first, second = layers(1, 1, [40], 100.0)[0], layers(1, 1, [18], 50.0)[0]
    assert int(fusion(first, second).lengths[0]) == 9
    # A click at 200 ms moves the frame at 200 ms most, in whichever stream it is.
    for index, rate in enumerate((100.0, 50.0)):
        quiet = [Features(torch.zeros(1, int(0.4 * r), 1), torch.tensor([int(0.4 * r)]), r) for r in (100.0, 50.0)]
        still = fusion(*quiet).values
        quiet[index].values[0, int(0.2 * rate)] = 1.0
        assert (fusion(*quiet).values - still).abs().sum(-1).argmax().item() in (4, 5, 6)
    with pytest.raises(ConfigError, match="power of two"):
        FramewiseAddition((1, 1), 4, (75.0, 50.0), 25.0)
    with pytest.raises(ConfigError, match="100.0 frames a second, got 50.0"):
        fusion(second, second)


def test_positions_make_cross_attention_follow_time() -> None:
    torch.manual_seed(0)
    fusion = CrossAttentionFusion((8, 8), 8, num_heads=1)
    for layer in (fusion.query, fusion.key):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    first, second = layers(1, 8, [40], 100.0)[0], layers(1, 8, [20], 50.0)[0]
    best = fusion.weights(first, second)[0, 0].argmax(-1)
    assert ((best - torch.arange(40) // 2).abs() <= 1).all()


def test_cross_attention_keeps_the_first_where_the_second_says_nothing() -> None:
    fusion = CrossAttentionFusion((8, 6), 8)
    nn.init.zeros_(fusion.output.weight)
    nn.init.zeros_(fusion.output.bias)
    first = layers(1, 8, [5, 3], 100.0)[0]
    out = fusion(first, layers(1, 6, [20, 0], 50.0)[0])
    assert torch.equal(out.values[0], first.values[0])
    assert torch.equal(out.values[1, :3], first.values[1, :3])


def test_an_unknown_fusion_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'addition'"):
        build_fusion("adition", (2, 4), 4)
