"""Fundamental frequency and voicing by autocorrelation and a Viterbi search over candidates, for a whole batch at once.

After Boersma (1993, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a
sampled sound"): the autocorrelation of a windowed frame divided by the window's own is the signal's; its peaks are
candidates, and the path through them pays for jumps. Read `f0`, then `_candidates`, `best_path`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.audio.frames import Framing, map_frames, window
from sonorant.audio.resample import Resample
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import valid_mask, zero_padding

__all__ = ["Pitch", "f0"]

_RATE = 8000
"""Hz at which pitch is looked for."""
_UPSAMPLE = 2
"""Points of the autocorrelation for each sample; a parabola finds the peak between them."""
_CANDIDATES = 8


@dataclass(frozen=True)
class Pitch:
    """What `f0` finds."""

    f0: Float[Tensor, "batch frame"]
    """Hz; 0 where unvoiced and beyond an item's end."""
    voicing: Float[Tensor, "batch frame"]
    """Probability that the frame is voiced."""
    lengths: Int[Tensor, " batch"]
    """Frames of each item; frame k is centred on k / frame_rate seconds."""
    frame_rate: float
    """Frames a second."""

    @property
    def voiced(self) -> Tensor:
        """Bool `(batch, frame)`: where there is a pitch."""
        return self.f0 > 0


def f0(
    waveform: Float[Tensor, "batch time"],
    sample_rate: int,
    lengths: Int[Tensor, " batch"] | None = None,
    low_hz: float = 60.0,
    high_hz: float = 500.0,
    hop: float = 0.01,
    voicing_threshold: float = 0.45,
    octave_cost: float = 0.025,
    jump_cost: float = 0.35,
    voicing_cost: float = 0.14,
) -> Pitch:
    """Fundamental frequency of each frame.

    Args:
        waveform: signals; what lies above 4 kHz is not looked at.
        sample_rate: Hz.
        lengths: samples of each item.
        low_hz: lowest pitch looked for; windows are three of its periods.
        high_hz: highest pitch looked for.
        hop: seconds between frames.
        voicing_threshold: periodicity (autocorrelation at the period, 0 … 1) from which a frame counts as voiced.
        octave_cost: how much a candidate an octave higher is preferred, in periodicity. A voice with every other pulse
            weaker by a share m has 1 - m² at the pulse rate and 1 an octave lower.
        jump_cost: price of a jump by an octave from one centisecond to the next.
        voicing_cost: price of a change between voiced and unvoiced.

    >>> tone = torch.sin(2 * math.pi * 220 * torch.arange(16000) / 16000)[None]
    >>> f0(tone, 16000).f0[0, 50].round().item()
    220.0
    """
    if not 0 < low_hz < high_hz or hop <= 0 or high_hz > _RATE / 4:
        raise ConfigError(
            f"pitch needs 0 < low_hz < high_hz ≤ {_RATE // 4} Hz and hop > 0 s, got {low_hz}, {high_hz} and {hop}"
        )
    if lengths is None:
        lengths = torch.full((len(waveform),), waveform.shape[1], device=waveform.device)
    rate = min(sample_rate, _RATE)
    waveform = zero_padding(waveform, lengths)
    if sample_rate > _RATE:
        waveform, lengths = Resample(sample_rate, _RATE, "fast")(waveform, lengths)
    framing = Framing(round(3 * rate / low_hz), round(rate * hop), "zero")
    peak = waveform.abs().amax(dim=1, keepdim=True) if waveform.shape[1] else waveform.new_ones(len(waveform), 1)
    frequencies, strengths, level = _candidates(waveform, lengths, framing, rate, low_hz, high_hz, octave_cost)
    counts = framing.geometry.output_lengths(lengths)
    mask = valid_mask(counts, frequencies.shape[1])
    # A frame below 1 % of the item's peak is silence, however periodic.
    silence = (2 - (level / peak.clamp(min=1e-9)) / (0.03 / (1 + voicing_threshold))).clamp(min=0)
    unvoiced = voicing_threshold + silence
    # Centred, so that the preference among candidates does not lean towards voiced or unvoiced.
    bonus = octave_cost * torch.log2((frequencies / math.sqrt(low_hz * high_hz)).clamp(min=1e-9))
    scores = torch.cat([unvoiced[:, :, None], torch.where(frequencies > 0, strengths + bonus, -1e4)], dim=2)
    step = 0.01 / hop
    path = best_path(scores, frequencies, mask, jump_cost * step, voicing_cost * step)
    chosen = torch.cat([torch.zeros_like(unvoiced)[:, :, None], frequencies], dim=2).gather(2, path[:, :, None])
    certainty = (strengths.amax(dim=2) - unvoiced) / 0.1
    return Pitch(chosen[:, :, 0] * mask, torch.sigmoid(certainty) * mask, counts, rate / framing.hop)


def _candidates(
    waveform: Tensor, lengths: Tensor, framing: Framing, rate: int, low_hz: float, high_hz: float, octave_cost: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Frequencies (0 where there is none) and strengths, `(batch, frame, candidate)`, and each frame's peak level."""
    size = framing.size
    first, last = math.floor(_UPSAMPLE * rate / high_hz), math.ceil(_UPSAMPLE * rate / low_hz)
    n_fft = 1 << (size + last // _UPSAMPLE).bit_length()
    taps = window("hann", size, periodic=True, dtype=torch.float64)
    window_power = torch.fft.rfft(taps, n=n_fft).abs().square()
    of_window = torch.fft.irfft(window_power, n=_UPSAMPLE * n_fft)[: last + 2]
    lags = torch.arange(first - 1, last + 2, dtype=torch.float64)
    divisor = (of_window[0] / of_window[first - 1 : last + 2]).to(waveform)
    bonus = (-octave_cost * torch.log2(lags * low_hz / (_UPSAMPLE * rate))).to(waveform)
    taps = taps.to(waveform)
    middle = slice(size // 3, size - size // 3)

    def work(rows: Tensor) -> Tensor:
        centred = rows - rows.mean(dim=1, keepdim=True)
        level = centred[:, middle].abs().amax(dim=1, keepdim=True)
        spectrum = torch.fft.rfft(centred * taps, n=n_fft)
        power = spectrum.real.square() + spectrum.imag.square()
        whole = torch.fft.irfft(power, n=_UPSAMPLE * n_fft)
        periodicity = whole[:, first - 1 : last + 2] / whole[:, :1].clamp(min=1e-12) * divisor
        return torch.cat([*_peaks(periodicity, bonus, first, rate), level], dim=1)

    values = map_frames(waveform, lengths, framing, work, 2 * _CANDIDATES + 1)
    return values[..., :_CANDIDATES], values[..., _CANDIDATES : 2 * _CANDIDATES], values[..., -1]


def _peaks(periodicity: Tensor, bonus: Tensor, first: int, rate: int) -> tuple[Tensor, Tensor]:
    """The best maxima over the lags, sharpened by a parabola: frequencies in Hz (0 for none) and strengths."""
    before, here, after = periodicity[:, :-2], periodicity[:, 1:-1], periodicity[:, 2:]
    is_peak = (here > before) & (here >= after) & (here > 0)
    # The highest few, with the preference for short lags that the path will apply as well.
    rank, at = torch.where(is_peak, here + bonus[1:-1], -1e4).topk(_CANDIDATES, dim=1)
    left, mid, right = (part.gather(1, at) for part in (before, here, after))
    curve = (left - 2 * mid + right).clamp(max=-1e-9)
    shift = 0.5 * (left - right) / curve
    height = mid - 0.25 * (left - right) * shift
    # Above 1 there is interpolation's and noise's doing: mirrored, as Boersma does.
    height = torch.where(height > 1, 1 / height.clamp(min=1e-9), height)
    frequency = _UPSAMPLE * rate / (at + first + shift)
    found = rank > -1e3
    return torch.where(found, frequency, 0.0), torch.where(found, height, 0.0)


def best_path(
    scores: Float[Tensor, "batch frame state"],
    frequencies: Float[Tensor, "batch frame candidate"],
    mask: Tensor,
    jump_cost: float,
    voicing_cost: float,
) -> Int[Tensor, "batch frame"]:
    """The state of each frame on the path of highest score; state 0 is unvoiced, the others are candidates.

    Frames beyond an item's end let the state pass unchanged, so that the path back begins at the item's own end.
    """
    batch, frames, states = scores.shape
    if frames == 0 or batch == 0:
        return torch.zeros(batch, frames, dtype=torch.long, device=scores.device)
    octave = torch.log2(frequencies.clamp(min=1.0))
    cost = scores.new_full((batch, frames - 1, states, states), voicing_cost)
    cost[..., 0, 0] = 0
    cost[..., 1:, 1:] = jump_cost * (octave[:, :-1, :, None] - octave[:, 1:, None, :]).abs()
    stay = torch.where(torch.eye(states, dtype=torch.bool, device=scores.device), 0.0, 1e9).to(scores.dtype)
    gain = torch.where(mask[:, 1:, None, None], -cost, -stay) + (scores * mask[:, :, None])[:, 1:, None, :]
    total, back = scores[:, 0], []
    for step in gain.unbind(1):
        total, origin = (total[:, :, None] + step).max(dim=1)
        back.append(origin)
    state = total.argmax(dim=1, keepdim=True)
    path = [state]
    for origin in reversed(back):
        state = origin.gather(1, state)
        path.append(state)
    return torch.cat(path[::-1], dim=1)
