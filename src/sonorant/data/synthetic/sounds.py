"""Sounds that are no speech, by class: for tagging, for noise, and for telling speech from the rest.

`SOUNDS` is the catalogue; each entry makes a waveform from random draws. `sound` is the door.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sonorant.core.config import at_least
from sonorant.core.errors import ConfigError, unknown_name
from sonorant.core.seed import derive

__all__ = ["SOUNDS", "sound"]

Array = NDArray[np.float64]
Maker = Callable[[np.random.Generator, Array, int], Array]


def sound(name: str, seed: int, *, seconds: float = 1.0, sample_rate: int = 16000) -> Float[Tensor, " time"]:
    """A sound of a class; the same for the same arguments in every process.

    Args:
        name: of the class, see `SOUNDS`.
        seed: another seed gives another sound of the class.
        seconds: its length.
        sample_rate: Hz.

    Returns:
        A waveform with a peak between -20 and -1 dB of full scale.
    """
    if name not in SOUNDS:
        raise ConfigError(unknown_name("sound", name, SOUNDS))
    at_least("seconds", seconds, 0.01)
    at_least("sample_rate", sample_rate, 4000)
    draws = np.random.default_rng(derive(seed, "sound", name))
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    signal = SOUNDS[name](draws, time, sample_rate)
    peak = float(np.max(np.abs(signal))) or 1.0
    return torch.from_numpy((signal * (10 ** (draws.uniform(-20, -1) / 20) / peak)).astype(np.float32))


def _log_uniform(draws: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(draws.uniform(np.log(low), np.log(high))))


def _phase(hz: Array, rate: int) -> Array:
    return 2 * np.pi * np.cumsum(hz) / rate


def _filtered(draws: np.random.Generator, time: Array, rate: int, gain: Callable[[Array], Array]) -> Array:
    """Noise with a spectrum of the given shape."""
    spectrum = np.fft.rfft(draws.standard_normal(len(time)))
    return np.fft.irfft(spectrum * gain(np.fft.rfftfreq(len(time), 1 / rate).astype(np.float64)), len(time))


def _onsets(draws: np.random.Generator, time: Array, per_second: float) -> list[float]:
    """Random times, at least one."""
    count = max(1, int(draws.poisson(per_second * time[-1])))
    return sorted(draws.uniform(0, max(time[-1] - 0.02, 1e-3), count).tolist())


def _struck(time: Array, start: float, decay: float) -> Array:
    """An envelope that jumps up at `start` and falls by a factor e in `decay` seconds."""
    after = time - start
    return np.where(after >= 0, np.exp(-np.maximum(after, 0) / decay), 0.0)


def _tone(draws: np.random.Generator, time: Array, rate: int) -> Array:
    return np.sin(2 * np.pi * _log_uniform(draws, 150, 4000) * time + draws.uniform(0, 6.28))


def _chord(draws: np.random.Generator, time: Array, rate: int) -> Array:
    root = _log_uniform(draws, 110, 500)
    third, fifth = draws.choice([1.2, 1.25]), 1.5
    notes = [root * step * part for step in (1, third, fifth) for part in (1, 2, 3)]
    return np.sum([np.sin(2 * np.pi * hz * time) / (1 + i % 3) for i, hz in enumerate(notes)], axis=0)


def _chirp(draws: np.random.Generator, time: Array, rate: int) -> Array:
    start, stop = _log_uniform(draws, 200, 1500), _log_uniform(draws, 1500, 6000)
    if draws.random() < 0.5:
        start, stop = stop, start
    return np.sin(_phase(start * (stop / start) ** (time / time[-1]), rate))


def _siren(draws: np.random.Generator, time: Array, rate: int) -> Array:
    centre, speed = _log_uniform(draws, 500, 1500), draws.uniform(0.5, 3)
    return np.sin(_phase(centre * 2 ** (0.5 * np.sin(2 * np.pi * speed * time)), rate))


def _two_tone(draws: np.random.Generator, time: Array, rate: int) -> Array:
    low, speed = _log_uniform(draws, 350, 900), draws.uniform(1, 4)
    hz = np.where(np.floor(time * speed) % 2 == 0, low, low * draws.uniform(1.2, 1.6))
    return np.tanh(2 * np.sin(_phase(hz, rate)))


def _am(draws: np.random.Generator, time: Array, rate: int) -> Array:
    carrier, speed = _log_uniform(draws, 300, 4000), _log_uniform(draws, 3, 60)
    return (1 + np.sin(2 * np.pi * speed * time)) * np.sin(2 * np.pi * carrier * time)


def _fm(draws: np.random.Generator, time: Array, rate: int) -> Array:
    carrier, ratio, depth = _log_uniform(draws, 200, 1500), draws.uniform(0.3, 3), draws.uniform(2, 8)
    return np.sin(2 * np.pi * carrier * time + depth * np.sin(2 * np.pi * carrier * ratio * time))


def _bell(draws: np.random.Generator, time: Array, rate: int) -> Array:
    root, decay = _log_uniform(draws, 300, 1500), draws.uniform(0.15, 0.6)
    partials = np.array([0.56, 0.92, 1.19, 1.71, 2.0, 2.74, 3.0, 3.76, 4.07])  # of a struck bell (Risset, 1969)
    signal = np.zeros_like(time)
    for start in _onsets(draws, time, 1.0):
        for number, partial in enumerate(partials):
            envelope = _struck(time, start, decay / (1 + 0.5 * number))
            signal += envelope * np.sin(2 * np.pi * root * partial * (time - start)) / (1 + 0.4 * number)
    return signal


def _plucked(draws: np.random.Generator, time: Array, rate: int) -> Array:
    signal = np.zeros_like(time)
    for start in _onsets(draws, time, 2.0):
        root = _log_uniform(draws, 110, 660)
        for harmonic in range(1, 12):
            envelope = _struck(time, start, draws.uniform(0.2, 0.5) / harmonic**0.7)
            signal += envelope * np.sin(2 * np.pi * root * harmonic * (time - start)) / harmonic
    return signal


def _clicks(draws: np.random.Generator, time: Array, rate: int) -> Array:
    signal = np.zeros_like(time)
    for start in _onsets(draws, time, draws.uniform(4, 20)):
        hz = _log_uniform(draws, 1000, 6000)
        signal += _struck(time, start, 0.0015) * np.sin(2 * np.pi * hz * (time - start))
    return signal


def _knocks(draws: np.random.Generator, time: Array, rate: int) -> Array:
    gap, hz = draws.uniform(0.12, 0.35), _log_uniform(draws, 90, 350)
    starts = np.arange(draws.uniform(0, 0.1), max(time[-1], 0.11), gap)
    return np.sum([_struck(time, s, 0.025) * np.sin(2 * np.pi * hz * (time - s)) for s in starts], axis=0)


def _crackle(draws: np.random.Generator, time: Array, rate: int) -> Array:
    spikes = np.where(draws.random(len(time)) < 60 / rate, draws.standard_normal(len(time)), 0)
    kernel = np.exp(-np.arange(rate // 500) / (rate / 3000))
    spikes[0] += 0.1
    return np.convolve(spikes, kernel)[: len(time)]


def _white(draws: np.random.Generator, time: Array, rate: int) -> Array:
    return draws.standard_normal(len(time))


def _brown(draws: np.random.Generator, time: Array, rate: int) -> Array:
    return _filtered(draws, time, rate, lambda hz: 1 / np.maximum(hz, 30))


def _band(draws: np.random.Generator, time: Array, rate: int) -> Array:
    centre, width = _log_uniform(draws, 300, 5000), draws.uniform(0.08, 0.4)
    return _filtered(draws, time, rate, lambda hz: np.exp(-((hz - centre) ** 2) / (2 * (width * centre) ** 2)))


def _wind(draws: np.random.Generator, time: Array, rate: int) -> Array:
    noise = _filtered(draws, time, rate, lambda hz: 1 / (1 + (hz / 400) ** 2))
    gust = 0.3 + np.abs(np.sin(2 * np.pi * draws.uniform(0.3, 1.2) * time + draws.uniform(0, 6.28)))
    return noise * gust


def _hum(draws: np.random.Generator, time: Array, rate: int) -> Array:
    mains = draws.choice([50.0, 60.0])
    parts = [np.sin(2 * np.pi * mains * n * time + draws.uniform(0, 6.28)) * draws.random() / n for n in range(1, 12)]
    return np.sum(parts, axis=0)


def _engine(draws: np.random.Generator, time: Array, rate: int) -> Array:
    hz = _log_uniform(draws, 20, 70) * (1 + 0.2 * np.sin(2 * np.pi * draws.uniform(0.2, 1) * time))
    pulses = np.exp(6 * (np.cos(_phase(hz, rate)) - 1))
    return (pulses - pulses.mean()) + 0.1 * pulses * draws.standard_normal(len(time))


def _drops(draws: np.random.Generator, time: Array, rate: int) -> Array:
    signal = np.zeros_like(time)
    for start in _onsets(draws, time, 6.0):
        root, rise = _log_uniform(draws, 500, 2500), draws.uniform(5, 15)
        after = np.maximum(time - start, 0)
        signal += _struck(time, start, 0.03) * np.sin(2 * np.pi * root * (after + 0.5 * rise * after**2))
    return signal


def _beeps(draws: np.random.Generator, time: Array, rate: int) -> Array:
    hz, period, share = _log_uniform(draws, 600, 3500), draws.uniform(0.15, 0.5), draws.uniform(0.3, 0.7)
    return np.where((time / period) % 1 < share, np.sin(2 * np.pi * hz * time), 0.0)


SOUNDS: Mapping[str, Maker] = {
    "tone": _tone, "chord": _chord, "chirp": _chirp, "siren": _siren, "two_tone": _two_tone, "am": _am, "fm": _fm,
    "bell": _bell, "plucked": _plucked, "clicks": _clicks, "knocks": _knocks, "crackle": _crackle,
    "white_noise": _white, "brown_noise": _brown, "band_noise": _band, "wind": _wind, "hum": _hum, "engine": _engine,
    "drops": _drops, "beeps": _beeps,
}  # fmt: skip
"""Class → how to make one of it from draws, the times in seconds and the rate in Hz."""
