"""Filters: convolution by FFT, recursive filters without a loop over samples, and the usual second-order designs.

A recursive filter (`lfilter`) runs on blocks of 128 samples: within a block it is a triangular Toeplitz matrix
product; from block to block only the state passes on, by a scan whose depth is the logarithm of the number of blocks.
So it is exact, causal (what follows never changes what came before), differentiable in signal and coefficients, and
fast on any device.
Designs are Bristow-Johnson's "Cookbook formulae for audio equalizer biquad filter coefficients".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sonorant.core.errors import ConfigError

__all__ = [
    "Biquad", "bandpass", "biquad", "deemphasis", "fft_convolve", "high_shelf", "highpass", "lfilter", "low_shelf",
    "lowpass", "notch", "peak_polynomials", "peaking", "preemphasis", "shelf_polynomials", "sosfilt",
]  # fmt: skip

_BLOCK = 128

Coefficients = Sequence[float] | Float[Tensor, "..."]
Number = TypeVar("Number", float, Tensor)
Polynomial = tuple[Number, Number, Number]


def fft_convolve(
    waveform: Float[Tensor, "*batch time"], kernel: Float[Tensor, "*kernels tap"], mode: str = "full"
) -> Float[Tensor, "*both new_time"]:
    """Convolution along the last axis, by FFT.

    Args:
        waveform: signal.
        kernel: impulse response, one for all or broadcast over the leading axes.
        mode: `"full"` (time + tap - 1 samples), `"same"` (the middle `time` of them) or `"causal"` (the first `time`).

    >>> fft_convolve(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0])).round(decimals=5).tolist()
    [1.0, 3.0, 2.0]
    """
    time, taps = waveform.shape[-1], kernel.shape[-1]
    if time == 0 or taps == 0:
        raise ConfigError(f"convolution needs samples on both sides, got {time} and {taps}")
    total = time + taps - 1
    size = _fast_size(total)
    product = torch.fft.rfft(waveform, n=size) * torch.fft.rfft(kernel, n=size)
    result = torch.fft.irfft(product, n=size)[..., :total]
    if mode == "full":
        return result
    if mode == "causal":
        return result[..., :time]
    if mode == "same":
        return result[..., (taps - 1) // 2 : (taps - 1) // 2 + time]
    raise ConfigError(f"mode must be full, same or causal, got {mode!r}")


def _fast_size(least: int) -> int:
    """The next 2^a · {1, 3, 5, 9, 15}: at most a seventh above, and fast everywhere."""
    candidates = (odd << max(0, math.ceil(math.log2(least / odd))) for odd in (1, 3, 5, 9, 15))
    return min(size for size in candidates if size >= least)


def preemphasis(waveform: Float[Tensor, "*batch time"], coefficient: float = 0.97) -> Float[Tensor, "*batch time"]:
    """x_t - coefficient · x_{t-1}, with silence before the first sample."""
    return waveform - coefficient * F.pad(waveform, (1, 0))[..., :-1]


def deemphasis(waveform: Float[Tensor, "*batch time"], coefficient: float = 0.97) -> Float[Tensor, "*batch time"]:
    """The inverse of `preemphasis`.

    >>> x = torch.randn(100)
    >>> torch.allclose(deemphasis(preemphasis(x)), x, atol=1e-5)
    True
    """
    return lfilter(waveform, [1.0], [1.0, -coefficient])


def lfilter(waveform: Float[Tensor, "*batch time"], b: Coefficients, a: Coefficients) -> Float[Tensor, "*both time"]:
    """Recursive filter a_0 y_t = Σ b_k x_{t-k} - Σ_{k≥1} a_k y_{t-k}, at rest before the first sample.

    Args:
        waveform: signal.
        b: numerator, the same for all items, or a tensor whose leading axes broadcast with the waveform's.
        a: denominator, likewise; a_0 not 0.

    Single precision serves filters of second order; build higher orders as sections (`sosfilt`) or use float64.
    """
    shape = waveform.shape
    numerator, denominator = _coefficient(b, waveform), _coefficient(a, waveform)
    order = max(numerator.shape[-1], denominator.shape[-1], 2) - 1
    numerator = F.pad(numerator, (0, order + 1 - numerator.shape[-1])) / denominator[..., :1]
    denominator = F.pad(denominator, (0, order + 1 - denominator.shape[-1])) / denominator[..., :1]
    time = shape[-1]
    blocks = -(-time // _BLOCK)
    if blocks == 0:
        return waveform
    inputs = F.pad(waveform, (0, blocks * _BLOCK - time)).reshape(*shape[:-1], blocks, _BLOCK)
    system = _System.of(numerator, denominator)
    dtype = waveform.dtype
    outputs = inputs @ system.within.to(dtype)
    if blocks > 1:
        states = _scan(inputs @ system.entering.to(dtype), system.across.to(dtype))
        # The state that block k begins with is what blocks up to k - 1 left.
        outputs = outputs + F.pad(states, (0, 0, 1, 0))[..., :-1, :] @ system.leaving.to(dtype)
    return outputs.reshape(*outputs.shape[:-2], blocks * _BLOCK)[..., :time]


def _coefficient(values: Coefficients, like: Tensor) -> Tensor:
    # Powers of the transition matrix are taken in double precision: a pole near 1 is raised to the 128th.
    return torch.as_tensor(values, dtype=torch.float64, device=like.device)


@dataclass(frozen=True)
class _System:
    """A filter on blocks of L samples, states as rows: y = x·within + s·leaving, s' = s·across + x·entering.

    Transposed direct form II: s_{t+1} = A s_t + B x_t, y_t = s_t[0] + b_0 x_t, with A's first column -a_{1…} and ones
    above the diagonal, B = b_{1…} - a_{1…} b_0.
    """

    within: Tensor
    entering: Tensor
    leaving: Tensor
    across: Tensor

    @classmethod
    def of(cls, b: Tensor, a: Tensor) -> "_System":
        order = b.shape[-1] - 1
        shift = torch.diag(b.new_ones(order - 1), 1)
        batch = torch.broadcast_shapes(b.shape[:-1], a.shape[:-1])
        first = F.pad(-a[..., 1:, None], (0, order - 1)).expand(*batch, order, order)
        matrix = first + shift
        gain = (b[..., 1:] - a[..., 1:] * b[..., :1]).expand(*batch, order)
        # A^0 … A^L by doubling.
        powers = torch.eye(order, dtype=b.dtype, device=b.device).expand(*batch, 1, order, order)
        step = matrix
        while powers.shape[-3] < _BLOCK:
            powers = torch.cat([powers, powers @ step[..., None, :, :]], dim=-3)
            step = step @ step
        rows = powers[..., 0, :]  # C A^k: how a state shows k samples later
        tail = (rows[..., :-1, :] * gain[..., None, :]).sum(-1)
        response = torch.cat([b[..., :1].expand(*batch, 1), tail], dim=-1)
        lag = torch.arange(_BLOCK, device=b.device)[None, :] - torch.arange(_BLOCK, device=b.device)[:, None]
        within = torch.where(lag >= 0, response[..., lag.clamp(min=0)], 0.0)
        entering = (powers.flip(-3) @ gain[..., None, :, None])[..., 0]  # A^{L-1-t} B
        return cls(within, entering, rows.mT, step.mT)


def _scan(entering: Float[Tensor, "*batch block order"], across: Float[Tensor, "*any order order"]) -> Tensor:
    """s_k = s_{k-1}·across + entering_k for all k, doubling the reach log2(blocks) times."""
    states, reach = entering, 1
    while reach < entering.shape[-2]:
        moved = F.pad(states @ across, (0, 0, reach, 0))[..., : states.shape[-2], :]
        states, across, reach = states + moved, across @ across, 2 * reach
    return states


@dataclass(frozen=True)
class Biquad:
    """Coefficients of a second-order section, a_0 = 1; numbers, or tensors for a different filter for each item."""

    b: tuple[float, float, float]
    a: tuple[float, float, float]

    def response(self, frequency_hz: float, sample_rate: float) -> complex:
        """Gain and phase at a frequency.

        >>> round(abs(lowpass(1000, 16000).response(0, 16000)), 6)
        1.0
        """
        turn = complex(math.cos(w := 2 * math.pi * frequency_hz / sample_rate), -math.sin(w))
        above = self.b[0] + self.b[1] * turn + self.b[2] * turn * turn
        return above / (self.a[0] + self.a[1] * turn + self.a[2] * turn * turn)


def biquad(waveform: Float[Tensor, "*batch time"], section: Biquad) -> Float[Tensor, "*batch time"]:
    """One second-order section."""
    return lfilter(waveform, section.b, section.a)


def sosfilt(waveform: Float[Tensor, "*batch time"], sections: Sequence[Biquad]) -> Float[Tensor, "*batch time"]:
    """Second-order sections one after the other."""
    for section in sections:
        waveform = biquad(waveform, section)
    return waveform


def _design(b: Sequence[float], a: Sequence[float]) -> Biquad:
    return Biquad((b[0] / a[0], b[1] / a[0], b[2] / a[0]), (1.0, a[1] / a[0], a[2] / a[0]))


def _angle(frequency_hz: float, sample_rate: float, q: float) -> tuple[float, float]:
    """cos ω and α of the cookbook."""
    if not 0 < frequency_hz < sample_rate / 2 or not q > 0:
        raise ConfigError(
            f"a filter's frequency must lie between 0 and {sample_rate / 2:g} Hz and its q above 0, "
            f"got {frequency_hz:g} Hz and q={q:g}"
        )
    omega = 2 * math.pi * frequency_hz / sample_rate
    return math.cos(omega), math.sin(omega) / (2 * q)


def lowpass(cutoff_hz: float, sample_rate: float, q: float = math.sqrt(0.5)) -> Biquad:
    """Passes what lies below `cutoff_hz`; -3 dB there, 12 dB an octave (Butterworth's where q = √½)."""
    cos, alpha = _angle(cutoff_hz, sample_rate, q)
    return _design([(1 - cos) / 2, 1 - cos, (1 - cos) / 2], [1 + alpha, -2 * cos, 1 - alpha])


def highpass(cutoff_hz: float, sample_rate: float, q: float = math.sqrt(0.5)) -> Biquad:
    """Passes what lies above `cutoff_hz`; -3 dB there, 12 dB an octave (Butterworth's where q = √½)."""
    cos, alpha = _angle(cutoff_hz, sample_rate, q)
    return _design([(1 + cos) / 2, -1 - cos, (1 + cos) / 2], [1 + alpha, -2 * cos, 1 - alpha])


def bandpass(center_hz: float, sample_rate: float, q: float = math.sqrt(0.5)) -> Biquad:
    """Passes a band around `center_hz`, 0 dB at its middle, `center_hz / q` wide."""
    cos, alpha = _angle(center_hz, sample_rate, q)
    return _design([alpha, 0.0, -alpha], [1 + alpha, -2 * cos, 1 - alpha])


def notch(center_hz: float, sample_rate: float, q: float = 10.0) -> Biquad:
    """Takes `center_hz` out, `center_hz / q` wide."""
    cos, alpha = _angle(center_hz, sample_rate, q)
    return _design([1.0, -2 * cos, 1.0], [1 + alpha, -2 * cos, 1 - alpha])


def peaking(center_hz: float, sample_rate: float, gain_db: float, q: float = 1.0) -> Biquad:
    """Raises or lowers a band around `center_hz` by `gain_db`."""
    cos, alpha = _angle(center_hz, sample_rate, q)
    return _design(*peak_polynomials(10 ** (gain_db / 40), cos, alpha))


def low_shelf(corner_hz: float, sample_rate: float, gain_db: float, q: float = math.sqrt(0.5)) -> Biquad:
    """Raises or lowers what lies below `corner_hz` by `gain_db`."""
    return _shelf(corner_hz, sample_rate, gain_db, q, 1.0)


def high_shelf(corner_hz: float, sample_rate: float, gain_db: float, q: float = math.sqrt(0.5)) -> Biquad:
    """Raises or lowers what lies above `corner_hz` by `gain_db`."""
    return _shelf(corner_hz, sample_rate, gain_db, q, -1.0)


def _shelf(corner_hz: float, sample_rate: float, gain_db: float, q: float, sign: float) -> Biquad:
    cos, alpha = _angle(corner_hz, sample_rate, q)
    return _design(*shelf_polynomials(10 ** (gain_db / 40), cos, alpha, sign))


def peak_polynomials(amplitude: Number, cosine: Number, alpha: Number) -> tuple[Polynomial[Number], Polynomial[Number]]:
    """Numerator and denominator of the cookbook's peak; of numbers, or of a tensor with a filter in each place.

    Args:
        amplitude: square root of the gain.
        cosine: of the angle of the filter's middle.
        alpha: the sine of that angle over 2 q.
    """
    b = (1 + alpha * amplitude, -2 * cosine, 1 - alpha * amplitude)
    return b, (1 + alpha / amplitude, -2 * cosine, 1 - alpha / amplitude)


def shelf_polynomials(
    amplitude: Number, cosine: Number, alpha: Number, sign: float
) -> tuple[Polynomial[Number], Polynomial[Number]]:
    """As `peak_polynomials`, of a shelf: `sign` is 1 for a low one and -1 for a high one."""
    up, down, slope, cosine = amplitude + 1, amplitude - 1, 2 * amplitude**0.5 * alpha, sign * cosine
    b = (
        amplitude * (up - down * cosine + slope),
        sign * 2 * amplitude * (down - up * cosine),
        amplitude * (up - down * cosine - slope),
    )
    return b, (up + down * cosine + slope, sign * -2 * (down + up * cosine), up + down * cosine - slope)
