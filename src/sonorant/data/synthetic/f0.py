"""Pitch of a synthetic utterance: a light tracker that is told where the voice is voiced and about how high it speaks.

Autocorrelation of windowed frames over the autocorrelation of the window (Boersma, 1993), searched within an octave of
the voice's own pitch, so that octave errors have no room. It runs on what the voice said before room and noise.
"""

import numpy as np
from numpy.typing import NDArray

from sonorant.data.synthetic.espeak import SILENCE, Speech

__all__ = ["FRAME_RATE", "is_voiced", "track"]

FRAME_RATE = 100
"""Frames a second."""
_VOICELESS = frozenset("ptkfsʃθxçhqcʔɸʂ")
_LEAST_PERIODICITY = 0.5
_OCTAVE_COST = 0.05
_WINDOW_PERIODS = 3.0


def is_voiced(phone: str) -> bool:
    """Whether a phone is spoken with the vocal folds.

    >>> is_voiced("z"), is_voiced("ts"), is_voiced("aɪ"), is_voiced("sil")
    (True, False, True, False)
    """
    return phone != SILENCE and phone[0] not in _VOICELESS


def track(speech: Speech, centre_hz: float, times: NDArray[np.float64]) -> NDArray[np.float32]:
    """Pitch in Hz at some times, 0 where there is none.

    Args:
        speech: what the voice said.
        centre_hz: about its median pitch.
        times: in seconds of `speech`.
    """
    from scipy.fft import irfft, rfft

    rate = speech.sample_rate
    low, high = centre_hz / 1.9, centre_hz * 1.9
    window = int(_WINDOW_PERIODS * rate / low) & ~1
    centres = np.rint(times * rate).astype(np.int64)
    padded = np.pad(speech.samples.astype(np.float32), window)
    frames = padded[centres[:, None] + np.arange(window // 2, window // 2 + window)[None, :]]
    shape = np.hanning(window).astype(np.float32)
    frames = (frames - frames.mean(axis=1, keepdims=True)) * shape
    size = 1 << (2 * window - 1).bit_length()
    correlation = irfft(np.abs(rfft(frames, size, axis=1)) ** 2, size, axis=1)[:, : window // 2]
    of_window = irfft(np.abs(rfft(shape, size)) ** 2, size)[: window // 2]
    correlation = correlation / np.maximum(correlation[:, :1], 1e-3) / (of_window / of_window[0])
    first, last = max(2, int(rate / high)), min(window // 2 - 2, int(rate / low))
    lags = np.arange(first, last + 1)
    # Two periods correlate as well as one; the shorter lag is preferred by a little.
    best = first + np.argmax(correlation[:, first : last + 1] - _OCTAVE_COST * np.log2(lags / first), axis=1)
    rows = np.arange(len(best))
    left, peak, right = (correlation[rows, best + step] for step in (-1, 0, 1))
    bend = left - 2 * peak + right
    offset = np.where(bend < 0, 0.5 * (left - right) / np.where(bend < 0, bend, -1), 0)
    return np.where(_voiced(speech, times) & (peak > _LEAST_PERIODICITY), rate / (best + offset), 0).astype(np.float32)


def _voiced(speech: Speech, times: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the phone at each time is voiced."""
    starts = np.array([phone.start for phone in speech.phones]) / speech.sample_rate
    voiced = np.array([is_voiced(phone.label) for phone in speech.phones])
    return voiced[np.clip(np.searchsorted(starts, times, side="right") - 1, 0, None)]
