"""Log power and prosody: signals with a known answer, and the contract of features."""

import math

import pytest
import torch
from tests.contracts.features import check_batch_equals_single, check_declarations, check_features, check_lengths

from sonorant.audio.features.log_power import LogPower
from sonorant.audio.features.prosody import Prosody, bridged
from sonorant.audio.stft import stft
from sonorant.core.errors import ConfigError


def test_log_power_contract() -> None:
    check_features(LogPower(n_fft=512))


def test_log_power_is_the_stfts() -> None:
    waveform = torch.randn(2, 4000)
    spectrum = stft(waveform, n_fft=512, hop_length=160, win_length=400)
    expected = spectrum.abs().square().clamp(min=1e-10).log().mT
    torch.testing.assert_close(LogPower(n_fft=512)(waveform).values, expected, atol=1e-3, rtol=1e-4)


def test_log_power_needs_a_transform_as_long_as_the_window() -> None:
    with pytest.raises(ConfigError, match="1 to n_fft=256 samples"):
        LogPower(n_fft=256)


def test_prosody_contract() -> None:
    module = Prosody()
    check_declarations(module, 4800)
    check_lengths(module, 4800)
    check_batch_equals_single(module, 4800, atol=1e-4)


def sweep(start: float, end: float) -> torch.Tensor:
    """A harmonic tone whose pitch glides, a second long."""
    hz = torch.linspace(start, end, 16000)
    phase = 2 * math.pi * hz.cumsum(0) / 16000
    return sum(torch.sin(k * phase) / k for k in range(1, 6)) * 0.2  # type: ignore[return-value]


def test_pitch_energy_and_crossings() -> None:
    torch.manual_seed(0)
    silence, noise = torch.zeros(8000), 0.1 * torch.randn(8000)
    waveform = torch.cat([sweep(120, 180), silence, 0.1 * sweep(120, 180), noise])[None]
    values = Prosody()(waveform).values[0]
    voiced = values[10:90]
    expected = torch.linspace(126, 174, 80)
    assert (voiced[:, 0].exp() - expected).abs().max() < 4
    assert (voiced[:, 1] == 1).all()
    assert not values[110:140, 1].any()
    assert values[110:140, 3].max() == 0
    # A tenth of the amplitude is a hundredth of the energy; noise crosses half of the time.
    louder, softer = values[20:80, 2].mean(), values[170:230, 2].mean()
    assert float(louder - softer) == pytest.approx(math.log(100), abs=0.1)
    assert float(values[255:295, 3].mean()) == pytest.approx(0.5, abs=0.05)


def test_pitch_goes_on_through_silence() -> None:
    waveform = torch.cat([sweep(120, 120), torch.zeros(8000), sweep(240, 240)])[None]
    log_pitch = Prosody()(waveform).values[0, 105:145, 0]
    assert (log_pitch.diff() > 0).all()
    assert math.log(118) < float(log_pitch.min()) < float(log_pitch.max()) < math.log(245)


def test_bridges() -> None:
    values = torch.tensor([[9.0, 1.0, 9.0, 3.0, 9.0], [9.0] * 5])
    known = torch.tensor([[False, True, False, True, False], [False] * 5])
    assert bridged(values, known, 7.0).tolist() == [[1, 1, 2, 3, 3], [7] * 5]
    assert bridged(torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool)).shape == (2, 0)


def test_nothing_voiced() -> None:
    values = Prosody()(torch.zeros(1, 3200)).values[0]
    assert float(values[:, 0].exp().mean()) == pytest.approx(math.sqrt(60 * 500), rel=1e-3)
    assert not values[:, 1].any()
