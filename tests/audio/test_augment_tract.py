"""Vocal tract length perturbation, against what mel bands of another throat hold."""

import math

import pytest
import torch

from sonorant.audio.augment.catalogue import build_augmentation
from sonorant.audio.augment.tract import warp_bands
from sonorant.audio.features.fbank import fbank, mel_scale
from sonorant.core.errors import ConfigError

RATE = 16000


def vowel(formants: tuple[float, ...]) -> torch.Tensor:
    """Noise through resonances: formants without harmonics."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.fft.rfft(torch.randn(RATE, generator=generator, dtype=torch.float64))
    hz = torch.arange(len(spectrum), dtype=torch.float64)
    shape = sum(torch.exp(-0.5 * ((hz - f) / (0.08 * f)).square()) for f in formants) + 1e-3
    return (torch.fft.irfft(spectrum * shape, RATE) / 50).float()


def bands(waveform: torch.Tensor, num_mels: int = 40) -> torch.Tensor:
    return fbank(waveform[None], RATE, num_mels=num_mels).mean(dim=1, keepdim=True)


@pytest.mark.parametrize("factor", [0.85, 0.95, 1.1, 1.2])
def test_formants_move_as_those_of_another_throat(factor: float) -> None:
    places = (600.0, 1500.0, 2700.0)
    plain, wanted = bands(vowel(places)), bands(vowel(tuple(f * factor for f in places)))
    warped = warp_bands(plain, torch.tensor([factor]), low_hz=20.0, high_hz=8000.0)
    inner = slice(4, 30)  # 250 Hz to 4.2 kHz: where the formants stand
    before = float((plain - wanted)[..., inner].abs().mean())
    after = float((warped - wanted)[..., inner].abs().mean())
    assert after < 0.25 * before


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.3, 2.0])
def test_the_map_rises_keeps_its_ends_and_scales_below_the_knee(factor: float) -> None:
    # On a ramp along mel the warped value says from where it was taken.
    dim, low, high = 60, 20.0, 8000.0
    ramp = torch.arange(dim, dtype=torch.float64)[None, None]
    place = warp_bands(ramp, torch.tensor([factor]), low_hz=low, high_hz=high)[0, 0]
    assert (place.diff() >= -1e-6).all()
    assert place[-1] > dim - 5  # the last centre lies a band below the end, which stays
    ends = mel_scale(torch.tensor([low, high]))
    step = (ends[1] - ends[0]) / (dim + 1)
    hz = 700 * torch.expm1((ends[0] + step * (place + 1)) / 1127)
    own = 700 * torch.expm1((ends[0] + step * torch.arange(1, dim + 1)) / 1127)
    free = (own < 0.85 * high * min(1.0, factor)) & (place > 0)
    torch.testing.assert_close(hz[free] * factor, own[free], rtol=1e-4, atol=0.1)


def test_no_warp_is_nothing_and_warps_undo_each_other() -> None:
    smooth = torch.sin(torch.linspace(0, 9, 80))[None, None].repeat(2, 3, 1)
    ends = {"low_hz": 20.0, "high_hz": 8000.0}
    torch.testing.assert_close(warp_bands(smooth, torch.ones(2), **ends), smooth)
    factors = torch.tensor([0.9, 1.1])
    back = warp_bands(warp_bands(smooth, factors, **ends), 1 / factors, **ends)
    assert (back - smooth)[..., 5:60].abs().max() < 0.02


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="low_hz < high_hz"):
        build_augmentation("tract_warp", low_hz=8000.0, high_hz=4000.0)
    with pytest.raises(ConfigError, match=r"TractWarp\.factor"):
        build_augmentation("tract_warp", factor=(math.nan, 1.0))
