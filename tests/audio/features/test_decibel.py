"""Decibels of mel energies against torch's own STFT."""

import pytest
import torch

from sonorant.audio.features.decibel import DecibelMel
from sonorant.audio.features.mel import mel_weights
from sonorant.core.errors import ConfigError


@pytest.mark.parametrize("range_db", [120.0, 30.0])
def test_its_definition(range_db: float) -> None:
    waveform = 0.1 * torch.randn(2, 8000)
    waveform[1, 4000:] = 0
    spectrum = torch.stft(waveform, 512, 160, window=torch.hann_window(512), return_complex=True).abs().square()
    weights = mel_weights(64, 512, 16000, scale="htk", norm=False).float()
    decibels = 10 * (spectrum.mT @ weights).clamp(min=1e-10).log10()
    expected = torch.maximum(decibels, decibels.amax(dim=(1, 2), keepdim=True) - range_db)
    torch.testing.assert_close(DecibelMel(range_db=range_db)(waveform).values, expected, atol=1e-3, rtol=1e-4)


def test_a_loud_neighbour_changes_nothing() -> None:
    waveform = torch.randn(2, 3000) * torch.tensor([[1e3], [1e-3]])
    module = DecibelMel(range_db=40.0)
    assert torch.equal(module(waveform).values[1], module(waveform[1:]).values[0])


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="range_db"):
        DecibelMel(range_db=0.0)
