"""Gammatone bands and their energies."""

import math

import pytest
import torch

from sonorant.audio.features.gammatone import Gammatone, erb, erb_centers, gammatone_bands, gammatone_weights
from sonorant.core.errors import ConfigError


def tone(hz: float, sample_rate: int = 16000, seconds: float = 0.5) -> torch.Tensor:
    return torch.sin(2 * math.pi * hz * torch.arange(round(seconds * sample_rate)) / sample_rate)


def test_erb_at_one_kilohertz() -> None:
    # Glasberg and Moore (1990): 132.6 Hz.
    assert abs(float(erb(torch.tensor([1000.0]))) - 132.6) < 0.1


def test_centers_are_evenly_spaced_in_erbs() -> None:
    centers = erb_centers(40, 80, 7000)
    number = torch.log(1 + 4.37 * centers / 1000)
    assert torch.allclose(number.diff(), number.diff()[:1].expand(39), atol=1e-9)


@pytest.mark.parametrize("hz", [200.0, 1000.0, 3000.0])
def test_a_tone_passes_its_band_with_gain_one(hz: float) -> None:
    centers = erb_centers(16, 100.0, 4000.0)
    bands = gammatone_bands(tone(hz)[None], 16000, 16, 100.0, 4000.0)[0]
    settled = bands[:, 4000:].square().mean(1).sqrt() * math.sqrt(2)
    expected = (1 + ((hz - centers) / (1.019 * erb(centers))).square()).pow(-2)
    assert torch.allclose(settled.double(), expected, atol=0.02)


def test_bands_are_causal() -> None:
    click = torch.zeros(1, 2000)
    click[0, 1000] = 1
    bands = gammatone_bands(click, 16000, 8)
    assert bands[..., :1000].abs().max() < 1e-6
    assert bands[..., 1000:].abs().max() > 1e-3


def test_energies_follow_the_bands() -> None:
    """The frame energies (FFT bins under the filters' responses) against the power of the filtered signal."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 32000, generator=generator)
    energies = Gammatone(num_bands=12, low_hz=300.0, high_hz=5000.0, log_floor=None)(noise).values[0].mean(0)
    power = gammatone_bands(noise, 16000, 12, 300.0, 5000.0)[0].square().mean(1)
    ratio = energies / power
    assert float(ratio.max() / ratio.min()) < 1.3


def test_weights_peak_at_centers() -> None:
    weights = gammatone_weights(20, 1024, 16000, 200.0, 6000.0)
    peaks = weights.argmax(0) * 16000 / 1024
    assert (peaks - erb_centers(20, 200.0, 6000.0)).abs().max() <= 16000 / 1024


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="low_hz=0"):
        Gammatone(low_hz=0.0)
