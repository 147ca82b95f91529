"""Equaliser: random peaking bands between a low and a high shelf, for microphones, lines and places."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sonorant.audio.augment.convolve import convolve
from sonorant.audio.augment.draws import check_range
from sonorant.audio.augment.items import Change, Items, augmented
from sonorant.audio.filters import peak_polynomials, shelf_polynomials
from sonorant.core.config import at_least, within
from sonorant.core.types import Batch

__all__ = ["Equalise", "equalise", "equaliser_response"]

Band = Literal["low_shelf", "peak", "high_shelf"]
RESPONSE_SECONDS = 0.25
"""Length of the filter that stands for the recursive ones: theirs have faded by over 150 dB from 50 Hz and q = 2 on."""


def equaliser_response(
    frequency: Float[Tensor, " freq"],
    band: Band,
    center_hz: Float[Tensor, "batch band"],
    gain_db: Float[Tensor, "batch band"],
    q: Float[Tensor, "batch band"],
    sample_rate: int,
) -> Complex[Tensor, "batch freq"]:
    """The product of second-order sections at some frequencies, by the formulas of Bristow-Johnson's cookbook.

    Args:
        frequency: Hz.
        band: kind of all the sections.
        center_hz: middle of a peak, or where a shelf has half its gain in dB.
        gain_db: of the peak or the shelf.
        q: center over width.
        sample_rate: Hz.
    """
    amplitude = 10 ** (gain_db / 40)
    omega = 2 * math.pi * center_hz / sample_rate
    cosine, alpha = torch.cos(omega), torch.sin(omega) / (2 * q)
    if band == "peak":
        b, a = peak_polynomials(amplitude, cosine, alpha)
    else:
        b, a = shelf_polynomials(amplitude, cosine, alpha, 1.0 if band == "low_shelf" else -1.0)
    angle = 2 * math.pi * frequency / sample_rate
    turn = torch.polar(torch.ones_like(angle), -angle)
    return (_polynomial(b, turn) / _polynomial(a, turn)).prod(dim=1)


def _polynomial(coefficients: tuple[Tensor, Tensor, Tensor], turn: Tensor) -> Complex[Tensor, "batch band freq"]:
    zero, one, two = (value[..., None] for value in coefficients)
    return zero + one * turn + two * turn * turn


def equalise(
    waveform: Float[Tensor, "batch *channel time"], response: Complex[Tensor, "batch freq"]
) -> Float[Tensor, "batch *channel time"]:
    """Filters each item by a response given at equal steps from 0 to half the sample rate."""
    return convolve(waveform, torch.fft.irfft(response).to(waveform))


@dataclass(frozen=True, kw_only=True)
class Equalise:
    """A random equaliser for each item: a shelf at either end and peaks between.

    >>> batch = Batch(torch.randn(1, 800), torch.tensor([800]), 16000, seeds=torch.tensor([1]))
    >>> Equalise(gain_db=(-3, 3))(batch).waveform.shape
    torch.Size([1, 800])
    """

    num_peaks: int = 4
    gain_db: tuple[float, float] = (-10.0, 10.0)
    """Range of each band's gain."""
    center_hz: tuple[float, float] = (100.0, 7000.0)
    """Range of the peaks, with equal chances for each octave; cut to below half the sample rate."""
    q: tuple[float, float] = (0.5, 2.0)
    """Range of the peaks' centre over width."""
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("Equalise.prob", self.prob, 0, 1)
        at_least("Equalise.num_peaks", self.num_peaks, 0)
        check_range("Equalise.gain_db", self.gain_db, -40, 40)
        check_range("Equalise.center_hz", self.center_hz, 50)
        check_range("Equalise.q", self.q, 0.1, 10)

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        return augmented(batch, f"{stream}/equalise", self.prob, self._change)

    def _change(self, items: Items) -> Change:
        draws, rate = items.draws, items.sample_rate
        size = 1 << (round(RESPONSE_SECONDS * rate) - 1).bit_length()
        frequency = torch.linspace(0, rate / 2, size // 2 + 1, device=items.waveform.device)
        highest = min(self.center_hz[1], 0.45 * rate)
        lowest = min(self.center_hz[0], highest)
        place = draws.uniforms("center_hz", self.num_peaks)
        center = lowest * (highest / lowest) ** place
        q = draws.uniforms("q", self.num_peaks, *self.q)
        gain = draws.uniforms("gain_db", self.num_peaks, *self.gain_db)
        response = equaliser_response(frequency, "peak", center, gain, q, rate)
        shelves: tuple[tuple[Band, float, float], ...] = (
            ("low_shelf", lowest, 3 * lowest),
            ("high_shelf", highest / 3, highest),
        )
        for band, low, high in shelves:
            corner = draws.uniforms(f"{band}/center_hz", 1, low, high)
            gain = draws.uniforms(f"{band}/gain_db", 1, *self.gain_db)
            q = torch.full_like(gain, math.sqrt(0.5))
            response = response * equaliser_response(frequency, band, corner, gain, q, rate)
        return Change(equalise(items.waveform, response))
