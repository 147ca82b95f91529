"""Levels and loudness of signals whose figures are known."""

import math

import pytest
import torch

from sonorant.audio.loudness import k_weighting, loudness, normalise_loudness, peak_db, rms_db
from sonorant.core.errors import ConfigError, DataError


def tone(hz: float, sample_rate: int, seconds: float, peak: float = 1.0) -> torch.Tensor:
    time = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    return (peak * torch.sin(2 * math.pi * hz * time)).float()


def decibels(gain_db: float) -> float:
    return 10 ** (gain_db / 20)


def test_rms_and_peak() -> None:
    wave = tone(1000, 16000, 1)
    assert abs(float(rms_db(wave[None])) + 3.0103) < 1e-3
    assert abs(float(peak_db(wave[None]))) < 1e-3
    padded = torch.cat([wave, torch.full((5000,), float("nan"))])[None]
    assert abs(float(rms_db(padded, torch.tensor([16000]))) + 3.0103) < 1e-3
    assert abs(float(peak_db(padded, torch.tensor([16000])))) < 1e-3
    assert float(rms_db(torch.zeros(1, 10))) == -math.inf


def test_coefficients_are_the_standards() -> None:
    """ITU-R BS.1770-4, tables 1 and 2."""
    shelf, cut = k_weighting(48000)
    assert torch.allclose(torch.tensor(shelf.b), torch.tensor([1.53512485958697, -2.69169618940638, 1.19839281085285]))
    assert torch.allclose(torch.tensor(shelf.a), torch.tensor([1.0, -1.69065929318241, 0.73248077421585]))
    assert torch.allclose(torch.tensor(cut.b), torch.tensor([1.0, -2.0, 1.0]))
    assert torch.allclose(torch.tensor(cut.a), torch.tensor([1.0, -1.99004745483398, 0.99007225036621]))


@pytest.mark.parametrize("sample_rate", [16000, 44100, 48000])
def test_a_full_tone_reads_three_below_zero(sample_rate: int) -> None:
    """The standard: 997 Hz at full scale in one channel reads -3.01 LUFS."""
    assert abs(float(loudness(tone(997, sample_rate, 3)[None], sample_rate)) + 3.01) < 0.05


@pytest.mark.parametrize("channels, expected", [(1, -3.01), (2, 0.0), (5, 0.691 - 0.691 + 10 * math.log10(5.82 / 2))])
def test_channels_add_up(channels: int, expected: float) -> None:
    wave = tone(997, 48000, 2).expand(1, channels, -1)
    assert abs(float(loudness(wave, 48000)) - expected) < 0.02


def test_ebu_tech_3341_cases() -> None:
    """Stereo 1 kHz tones; cases 1 to 5 of EBU Tech 3341, ± 0.1 LU, in a quarter of their time."""

    def stereo(*parts: tuple[float, float]) -> torch.Tensor:
        wave = torch.cat([tone(1000, 48000, seconds / 4, decibels(level)) for level, seconds in parts])
        return wave.expand(1, 2, -1)

    cases = [
        (stereo((-23.0, 20)), -23.0),
        (stereo((-33.0, 20)), -33.0),
        (stereo((-36.0, 10), (-23.0, 60), (-36.0, 10)), -23.0),
        (stereo((-72.0, 10), (-36.0, 10), (-23.0, 60), (-36.0, 10), (-72.0, 10)), -23.0),
        (stereo((-26.0, 20), (-20.0, 20.1), (-26.0, 20)), -23.0),
    ]
    for wave, expected in cases:
        assert abs(float(loudness(wave, 48000)) - expected) < 0.1


def test_six_decibels_more_are_six_units_more() -> None:
    wave = torch.randn(1, 48000) * 0.1
    assert abs(float(loudness(2 * wave, 16000) - loudness(wave, 16000)) - 6.0206) < 1e-3


def test_item_alone_equals_item_in_batch() -> None:
    waveform = torch.randn(4, 40000) * 0.1
    lengths = torch.tensor([40000, 20001, 6400, 900])
    for item, length in enumerate(lengths.tolist()):
        waveform[item, length:] = float("nan")
    together = loudness(waveform, 16000, lengths)
    for item, length in enumerate(lengths.tolist()):
        assert abs(float(together[item] - loudness(waveform[item : item + 1, :length], 16000))) < 1e-5


def test_normalising_reaches_the_target() -> None:
    waveform = torch.randn(2, 32000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.003], [0.2]])
    out = normalise_loudness(waveform, 16000, -30.0)
    assert torch.allclose(loudness(out, 16000), torch.tensor(-30.0), atol=0.01)
    limited = normalise_loudness(waveform, 16000, -3.0)
    assert float(peak_db(limited).max()) < -0.99
    assert torch.equal(normalise_loudness(torch.zeros(1, 8000), 16000), torch.zeros(1, 8000))


def test_silence_and_gradient() -> None:
    assert float(loudness(torch.zeros(1, 16000), 16000)) == -math.inf
    wave = (torch.randn(1, 60, dtype=torch.float64) * 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loudness(x, 8000), (wave,), atol=1e-4)


def test_misuse_is_refused() -> None:
    with pytest.raises(ConfigError, match="up to 5 channels, got 6"):
        loudness(torch.zeros(1, 6, 16000), 16000)
    with pytest.raises(ConfigError, match="4000 Hz at least, got 1000"):
        loudness(torch.zeros(1, 100), 1000)
    with pytest.raises(DataError, match="length 0"):
        loudness(torch.zeros(1, 100), 16000, torch.tensor([0]))
