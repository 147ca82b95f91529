"""Convolutions over the waveform as products of matrices equal torch's convolutions, and so do their gradients."""

import pytest
import torch
from torch import nn

from sonorant.core.errors import ConfigError
from sonorant.nn.waveform import WaveformConvs, strided_conv, tap_matrix, window_statistics


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])  # two products, and one by oneDNN
@pytest.mark.parametrize("kernel,stride", [(3, 2), (2, 2), (1, 1), (4, 2), (5, 3), (3, 1), (10, 5), (7, 2)])
def test_strided_conv_is_a_convolution(kernel: int, stride: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    frames = torch.randn(41, 6, dtype=dtype, requires_grad=True)
    weight, bias = (torch.randn(*size, dtype=dtype, requires_grad=True) for size in ((5, 6, kernel), (5,)))
    out = strided_conv(frames, tap_matrix(weight), stride, bias, "gelu")
    expected = nn.functional.gelu(nn.functional.conv1d(frames.t()[None], weight, bias, stride=stride)[0].t())
    tolerance = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 1e-10, "rtol": 1e-10}
    torch.testing.assert_close(out, expected, **tolerance)
    away = torch.randn_like(out)
    own = torch.autograd.grad((out * away).sum(), [frames, weight, bias])
    theirs = torch.autograd.grad((expected * away).sum(), [frames, weight, bias])
    for one, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(one, other, **tolerance)
    with torch.no_grad():
        torch.testing.assert_close(
            strided_conv(frames, tap_matrix(weight), stride, bias, "gelu"), expected, **tolerance
        )


def test_strided_conv_of_a_part_of_a_tensor() -> None:
    whole, weight = torch.randn(30, 4), torch.randn(3, 4, 3)
    part = whole[7:24]
    out = strided_conv(part, tap_matrix(weight), 2)
    torch.testing.assert_close(out, nn.functional.conv1d(part.t()[None], weight, stride=2)[0].t())


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_statistics_follow_from_the_windows(offset: float) -> None:
    """A constant a thousand times the signal would drown the variance in float32."""
    torch.manual_seed(0)
    waveform, weight = torch.randn(5000) * 0.1 + offset, torch.randn(16, 1, 10)
    mean, var = window_statistics(waveform, weight, 5)
    out = nn.functional.conv1d(waveform.double()[None, None], weight.double(), stride=5)[0]
    torch.testing.assert_close(mean, out.mean(1))
    torch.testing.assert_close(var, out.var(1, unbiased=False), rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm,bias", [("group", False), ("group", True), ("layer", True), ("none", False)])
def test_item_by_item_equals_the_padded_batch(norm: str, bias: bool) -> None:
    torch.manual_seed(0)
    convs = WaveformConvs(((12, 10, 5), (8, 3, 2), (8, 2, 2)), norm, bias)
    for parameter in convs.parameters():
        nn.init.normal_(parameter, std=0.5)
    lengths = torch.tensor([4001, 2500, 39, 40])
    waveform = torch.randn(4, 4001)
    frames = convs.output_lengths(lengths)
    found, counts = convs(waveform, lengths)
    assert torch.equal(counts, frames)
    assert frames.tolist() == [199, 124, 1, 1]
    torch.testing.assert_close(found, convs._padded(waveform, lengths, frames), atol=1e-5, rtol=1e-5)
    with torch.no_grad():  # in blocks
        torch.testing.assert_close(convs(waveform, lengths)[0], found, atol=1e-5, rtol=1e-5)


def test_group_norm_is_that_of_the_convolutions_output() -> None:
    torch.manual_seed(0)
    convs = WaveformConvs(((6, 10, 5),), "group")
    nn.init.normal_(convs.convs[0].scale)
    nn.init.normal_(convs.convs[0].shift)
    waveform = torch.randn(1, 800)
    conv = convs.convs[0]
    out = nn.functional.conv1d(waveform[:, None], conv.weight, stride=5)
    expected = nn.functional.gelu(nn.functional.group_norm(out, 6, conv.scale, conv.shift)).transpose(1, 2)
    torch.testing.assert_close(convs(waveform, torch.tensor([800]))[0], expected, atol=1e-5, rtol=1e-5)


def test_a_silent_item_is_finite() -> None:
    convs = WaveformConvs(((6, 10, 5), (6, 3, 2)), "group")
    found, _ = convs(torch.zeros(1, 900), torch.tensor([900]))
    found.sum().backward()
    assert found.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in convs.parameters())


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="conv_norm"):
        WaveformConvs(norm="batch")
    with pytest.raises(ConfigError, match="at least one"):
        WaveformConvs(())
