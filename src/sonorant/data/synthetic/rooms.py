"""From eSpeak's 22 kHz to a recording: tract, rate, equaliser, room and noise in one pass through the frequency domain.

The signal is transformed once. Cutting or filling its spectrum resamples it; a ratio a little off moves all formants (the
length of the vocal tract); the equaliser and the room's response are products; the noise is drawn as a spectrum and
added. One inverse transform ends it. numpy and scipy on one thread: the same bytes in every process.

`audio.spatial.rooms` simulates rooms as well, exactly and in batches on any device, for augmentation and for arrays. What is
here is a sketch of a room, and part of a corpus whose bytes must stay the same: it changes with the corpus's version only.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["BANDS_HZ", "CLEAN", "Channel", "channel_noise", "record", "room_response"]

BANDS_HZ = (125.0, 350.0, 900.0, 2000.0, 4000.0, 7500.0)
"""Where the equaliser's gains are given."""
_SPEED_OF_SOUND = 343.0


@dataclass(frozen=True)
class Channel:
    """How a voice reaches the file."""

    tract: float = 1.0
    """Played so much faster: formants and pitch go up by this factor, times go down."""
    equaliser_db: tuple[float, ...] = (0.0,) * len(BANDS_HZ)
    reverberation: float = 0.0
    """Seconds in which the room's response falls by 60 dB; 0 is no room."""
    direct_db: float = 6.0
    """Direct sound over the room's, in dB."""
    snr_db: float | None = None
    """Speech over the channel's noise; None is no noise."""
    noise_slope: float = 1.0
    """Power of the noise falls with frequency to this power: 0 white, 1 pink, 2 brown."""
    level_db: float = -26.0
    """Root mean square in dB of full scale; lower where the peaks would clip."""
    seed: int = 0


CLEAN = Channel()


def record(
    samples: NDArray[np.int16], from_rate: int, to_rate: int, channel: Channel
) -> tuple[NDArray[np.int16], float]:
    """A recording of `samples`, and how many samples come out for one that goes in.

    Args:
        samples: what the voice said, 16 bits.
        from_rate: its rate in Hz.
        to_rate: the recording's rate in Hz.
        channel: what lies between.
    """
    from scipy.fft import irfft, rfft

    tail = int(min(0.8 * channel.reverberation, 0.5) * from_rate)
    inside, outside = _sizes(len(samples) + tail + 64, to_rate / (from_rate * channel.tract), from_rate, to_rate)
    scale = outside / inside
    spectrum = rfft(samples.astype(np.float32), inside)
    bins = outside // 2 + 1
    if bins <= len(spectrum):
        spectrum = spectrum[:bins]
        _fade(spectrum)
    else:
        spectrum = np.concatenate([spectrum, np.zeros(bins - len(spectrum), np.complex64)])
    if any(channel.equaliser_db):
        spectrum *= _gains(channel.equaliser_db, bins, to_rate)
    draws = np.random.default_rng(channel.seed)
    if channel.reverberation > 0:
        spectrum *= rfft(room_response(draws, channel.reverberation, channel.direct_db, to_rate), outside)
    if channel.snr_db is not None:
        _add_noise(draws, spectrum, channel.snr_db, channel.noise_slope)
    length = round(len(samples) * scale)
    signal = irfft(spectrum, outside)[:length]
    return _levelled(signal, channel.level_db), scale


def _levelled(signal: NDArray[np.float32], level_db: float) -> NDArray[np.int16]:
    rms = float(np.sqrt(_energy(signal) / max(1, len(signal)))) or 1.0
    peak = float(max(signal.max(initial=0), -signal.min(initial=0))) or 1.0
    gain = min(32768 * 10 ** (level_db / 20) / rms, 0.98 * 32767 / peak)
    return np.rint(signal * np.float32(gain)).astype(np.int16)


@lru_cache(maxsize=1)
def _smooth_sizes() -> NDArray[np.int64]:
    """Even numbers with no factor above 7: sizes that are quick to transform."""
    found = {1}
    for prime in (2, 3, 5, 7):
        for number in sorted(found):
            while (number := number * prime) <= 2**23:
                found.add(number)
    return np.array(sorted(n for n in found if n % 2 == 0), dtype=np.int64)


def _sizes(length: int, ratio: float, from_rate: int, to_rate: int) -> tuple[int, int]:
    """Sizes of the two transforms: quick ones whose ratio is within some tenths of a percent of `ratio`.

    For the plain ratio of the rates it is exact.
    """
    sizes = _smooth_sizes()
    if abs(ratio * from_rate / to_rate - 1) < 1e-9:
        step = int(np.gcd(from_rate, to_rate))
        inside, outside = from_rate // step, to_rate // step
        blocks = int(sizes[np.searchsorted(sizes, -(-length // inside))])
        return inside * blocks, outside * blocks
    quick = sizes[sizes % 7 > 0]  # the longer transform is the dearer one
    inside = int(quick[np.searchsorted(quick, length)])
    target = inside * ratio
    near = int(np.searchsorted(sizes, target))
    return inside, int(min(sizes[near - 1 : near + 1], key=lambda size: abs(size - target)))


def _fade(spectrum: NDArray[np.complex64]) -> None:
    """Takes the last 4 % of the band down as half a cosine: a cut spectrum would ring."""
    edge = max(1, len(spectrum) // 25)
    spectrum[-edge:] *= (0.5 + 0.5 * np.cos(np.linspace(0, np.pi, edge))).astype(np.float32)


def _gains(equaliser_db: tuple[float, ...], bins: int, rate: int) -> NDArray[np.float32]:
    """The gain of each bin: between the bands in dB over log frequency, on a grid of 257 points, then straight lines."""
    grid = np.linspace(0, rate / 2, 257)
    curve = np.interp(np.log(np.maximum(grid, 20.0)), np.log(BANDS_HZ), equaliser_db)
    return np.interp(_bins(bins), np.arange(257) / 256, np.power(10.0, curve / 20)).astype(np.float32)


@lru_cache(maxsize=64)
def _bins(bins: int) -> NDArray[np.float64]:
    return np.linspace(0, 1, bins)


def room_response(draws: np.random.Generator, seconds: float, direct_db: float, rate: int) -> NDArray[np.float32]:
    """A room's response: the direct sound at 0, a few early echoes, a tail that falls by 60 dB in `seconds`.

    Args:
        draws: from which the tail and the echoes come.
        seconds: reverberation time.
        direct_db: energy of the direct sound over all the rest.
        rate: samples a second.
    """
    length = max(2, int(min(0.8 * seconds, 0.5) * rate))
    tail = _random(draws, length) * np.exp(np.arange(length, dtype=np.float32) * np.float32(-6.9078 / (seconds * rate)))
    tail[: int(0.002 * rate)] = 0
    # Early echoes come from walls some 1 to 6 m further; they stand out of the tail.
    echoes = (draws.uniform(1.0, 6.0, 5) / _SPEED_OF_SOUND * rate).astype(np.int64)
    tail[np.minimum(echoes, length - 1)] *= 4
    tail *= np.float32(10 ** (-direct_db / 20) / np.sqrt(_energy(tail) + 1e-12))
    tail[0] = 1
    return tail


_BANK = 1 << 21


@lru_cache(maxsize=1)
def _bank() -> NDArray[np.float32]:
    """Two million normal draws, made once: a stretch from a random place is noise at no cost."""
    return np.random.default_rng(2_718_281_828).standard_normal(_BANK, dtype=np.float32)


def _random(draws: np.random.Generator, count: int) -> NDArray[np.float32]:
    if count > _BANK // 2:
        return draws.standard_normal(count, dtype=np.float32)
    start = int(draws.integers(_BANK - count)) & ~1
    return _bank()[start : start + count]


def _energy(values: NDArray[np.float32]) -> float:
    """Sum of squares. No BLAS: its dot product depends on the number of threads."""
    return float(np.sum(np.square(values)))


def _add_noise(draws: np.random.Generator, spectrum: NDArray[np.complex64], snr_db: float, slope: float) -> None:
    """Adds noise, drawn as a spectrum and so much weaker than the signal whose spectrum is given."""
    bins = len(spectrum)
    shape, power = _slope(bins, round(slope, 1))
    gain = np.sqrt(_energy(spectrum.view(np.float32)) / power) * 10 ** (-snr_db / 20)
    noise = _random(draws, 2 * bins).reshape(bins, 2) * (shape * np.float32(gain))[:, None]
    spectrum += noise.view(np.complex64)[:, 0]


def channel_noise(signal: NDArray[np.float32], snr_db: float, slope: float, seed: int) -> NDArray[np.float32]:
    """Noise as long as a signal, `snr_db` below it, whose power falls with frequency to the power `slope`."""
    from scipy.fft import irfft, next_fast_len

    size = next_fast_len(max(len(signal), 2), real=True)
    size += size % 2
    spectrum = np.zeros(size // 2 + 1, np.complex64)
    spectrum[0] = 1.0
    _add_noise(np.random.default_rng(seed), spectrum, 0.0, slope)
    spectrum[0] = 0.0
    noise = irfft(spectrum, size)[: len(signal)].astype(np.float32)
    gain = np.sqrt(_energy(signal) / max(_energy(noise), 1e-20)) * 10 ** (-snr_db / 20)
    return noise * np.float32(gain)


@lru_cache(maxsize=128)
def _slope(bins: int, slope: float) -> tuple[NDArray[np.float32], float]:
    """Magnitude of noise at each bin, and its expected energy; flat below a two-hundredth of the band."""
    shape = np.power(np.maximum(np.arange(bins), bins / 200) / bins, -slope / 2).astype(np.float32)
    return shape, 2 * _energy(shape)
