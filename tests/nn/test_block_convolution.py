"""Convolution by blocks equals the direct one, for any lengths, kernels and groups, and so do its gradients."""

import pytest
import torch
from torch import Tensor, nn

from sonorant.core.types import Features
from sonorant.nn.block_convolution import block_convolve
from sonorant.nn.packed import pack
from sonorant.nn.position import ConvolutionalPosition


def direct(item: Tensor, weight: Tensor) -> Tensor:
    groups = weight.shape[0] // weight.shape[1]
    out = nn.functional.conv1d(item.transpose(1, 2), weight, padding=weight.shape[2] // 2, groups=groups)
    return out.transpose(1, 2)[:, : item.shape[1]]


@pytest.mark.parametrize("kernel", [1, 2, 7, 16, 33, 128])
@pytest.mark.parametrize("groups", [1, 3])
def test_equals_the_direct_convolution(kernel: int, groups: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 6 // groups, kernel, dtype=torch.double, requires_grad=True)
    items = [
        torch.randn(n, frames, 6, dtype=torch.double, requires_grad=True) for n, frames in ((2, 5), (1, 300), (3, 64))
    ]
    found = block_convolve(items, weight)
    for own, item in zip(found, items, strict=True):
        torch.testing.assert_close(own, direct(item, weight))
    away = [torch.randn_like(own) for own in found]
    ours = torch.autograd.grad([(a * b).sum() for a, b in zip(found, away, strict=True)], [*items, weight])
    expected = [direct(item, weight) for item in items]
    theirs = torch.autograd.grad([(a * b).sum() for a, b in zip(expected, away, strict=True)], [*items, weight])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_positions_by_blocks_are_those_of_the_padded_batch() -> None:
    torch.manual_seed(0)
    position = ConvolutionalPosition(8, 64, 2).eval()
    lengths = torch.tensor([300, 120, 300])
    given = Features(torch.randn(3, 300, 8), lengths, 50.0)
    (packed, layout), (padded, other) = pack(given, True), pack(given, False)
    torch.testing.assert_close(
        layout.padded(position.packed(packed, layout)),
        other.padded(position.packed(padded, other)),
        atol=1e-5,
        rtol=1e-5,
    )
