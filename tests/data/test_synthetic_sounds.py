"""Sounds that are no speech: each class is what its name says, and itself again from the same seed."""

import numpy as np
import pytest
import torch

from sonorant.core.errors import ConfigError
from sonorant.data.synthetic.sounds import SOUNDS, sound


@pytest.mark.parametrize("name", SOUNDS)
def test_every_class_sounds(name: str) -> None:
    for seed in range(4):
        signal = sound(name, seed, seconds=0.7)
        assert signal.shape == (11200,)
        assert bool(signal.isfinite().all())
        assert 0.09 < float(signal.abs().max()) < 0.9
    assert torch.equal(sound(name, 3, seconds=0.7), signal)
    assert not torch.equal(sound(name, 4, seconds=0.7), signal)
    assert len(sound(name, 0, seconds=0.05, sample_rate=8000)) == 400


def spread(name: str) -> float:
    """Spectral flatness: 1 for white noise, 0 for a tone."""
    values = []
    for seed in range(5):
        power = np.abs(np.fft.rfft(sound(name, seed).numpy() * np.hanning(16000))) ** 2 + 1e-12
        values.append(float(np.exp(np.mean(np.log(power))) / np.mean(power)))
    return float(np.mean(values))


def test_noise_is_flat_and_tones_are_not() -> None:
    assert spread("white_noise") > 0.4
    assert spread("tone") < 1e-3
    assert spread("brown_noise") < 0.1


def test_a_bell_fades_and_a_tone_stays() -> None:
    tone = sound("tone", 1).numpy()
    assert np.std(tone[-3000:]) > 0.9 * np.std(tone[:3000])
    bell = np.abs(sound("bell", 1).numpy())
    start = int(np.argmax(bell))
    assert bell[start : start + 400].mean() > 2 * bell[-400:].mean()


def test_an_unknown_class_is_named() -> None:
    with pytest.raises(ConfigError, match="sound 'bel'; did you mean 'bell'"):
        sound("bel", 0)
    with pytest.raises(ConfigError, match="seconds"):
        sound("bell", 0, seconds=0)
