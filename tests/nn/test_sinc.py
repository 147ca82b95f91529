"""Sinc filters pass their band and nothing else, and learn their edges."""

import math

import pytest
import torch

from sonorant.core.errors import ConfigError
from sonorant.nn.sinc import SincConv, sinc_filters


@pytest.mark.parametrize("low_hz, high_hz", [(300.0, 900.0), (1000.0, 1500.0), (3000.0, 7000.0), (0.0, 1000.0)])
def test_passband_and_stopband(low_hz: float, high_hz: float) -> None:
    low, high = torch.tensor([low_hz, high_hz], dtype=torch.float64)[:, None] / 16000
    response = torch.fft.rfft(sinc_filters(low, high, 251)[0], n=16000).abs()
    # A Hamming window of 251 taps blurs an edge by 1.66 / 251 of the sample rate to either side, and lets −53 dB
    # through, twice where both edges leak.
    blur = 106
    inside = response[int(low_hz) + blur if low_hz else 0 : int(high_hz) - blur]
    outside = torch.cat([response[: max(0, int(low_hz) - blur)], response[int(high_hz) + blur :]])
    assert (inside - 1).abs().max() < 0.01
    assert outside.max() < 10 ** (-47 / 20)


def test_bands_tile_the_spectrum() -> None:
    layer = SincConv(16, 251)
    low, high = (edge.detach() for edge in layer.edges_hz())
    assert torch.all(low.diff() > 0)
    assert abs(float(low[0]) - 51) < 0.1
    assert abs(float(high[-1]) - 7950) < 1
    torch.testing.assert_close(high[1:-1], low[2:])


def test_a_tone_comes_out_in_its_band_undelayed() -> None:
    layer = SincConv(12, 251)
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(4000) / 16000)
    bands = layer(tone[None])[0]
    low, high = layer.edges_hz()
    band = int(((low < 1000) & (high > 1000)).nonzero()[0])
    assert int(bands.square().sum(1).argmax()) == band
    loud = bands[:, 200:-200]
    assert torch.allclose(loud.sum(0), tone[200:-200], atol=0.02)  # the bands together give the tone back


def test_gradient_of_the_edges() -> None:
    low = torch.tensor([0.05, 0.1], dtype=torch.float64, requires_grad=True)
    high = torch.tensor([0.2, 0.13], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: sinc_filters(a, b, 11), (low, high))


def test_edges_move_towards_a_band() -> None:
    torch.manual_seed(0)
    layer = SincConv(1, 101)
    with torch.no_grad():
        layer.low.fill_(0.5)
        layer.band.fill_(0.3)
    wanted = sinc_filters(torch.tensor([700 / 16000]), torch.tensor([1200 / 16000]), 101)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        (layer.filters() - wanted).square().sum().backward()
        optimizer.step()
    low, high = (edge.detach() for edge in layer.edges_hz())
    assert abs(float(low) - 700) < 20
    assert abs(float(high) - 1200) < 20


def test_edges_stay_inside_the_spectrum() -> None:
    layer = SincConv(4, 101)
    with torch.no_grad():
        layer.low.fill_(99.0)
        layer.band.fill_(-99.0)
    low, high = layer.edges_hz()
    assert torch.all(low < high)
    assert torch.all(high <= 8000)


def test_even_kernels_are_refused() -> None:
    with pytest.raises(ConfigError, match="odd"):
        SincConv(4, 100)
    with pytest.raises(ConfigError, match="half the sample rate"):
        SincConv(4, 101, sample_rate=100)
