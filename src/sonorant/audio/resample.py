"""Resampling: soxr offline, and a windowed-sinc polyphase resampler in torch, differentiable and in chunks.

The output sample m stands at the input time m·from/to. Its value is the input weighted by a sinc below the lower of
the two Nyquist frequencies, under a Kaiser window. With the rates divided by their greatest common divisor there are
only `to` different phases; a run of consecutive phases reads nearly the same stretch of input, so a run is one matrix
product between strided stretches of input and a small dense kernel: no zeros inserted, no sample computed and thrown
away.
"""

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.errors import ConfigError, unknown_name
from sonorant.core.lengths import zero_padding

__all__ = ["QUALITIES", "Resample", "StreamingResampler", "resample", "resample_soxr", "resampled_length"]

# Attenuation of aliases in dB and end of the passband as a share of the lower Nyquist frequency. "high" has soxr HQ's
# passband; the stopband begins at the Nyquist frequency in all.
QUALITIES = {"fast": (80.0, 0.82), "high": (125.0, 0.913), "best": (140.0, 0.96)}

# Phases in one matrix product: wide enough for BLAS, narrow enough that few weights are zero.
_RUN = 64


def resampled_length(length: Any, from_rate: int, to_rate: int) -> Any:
    """Samples after resampling: length · to / from, halves rounded up. For an integer or a tensor of them.

    >>> resampled_length(441, 44100, 16000)
    160
    """
    return (2 * length * to_rate + from_rate) // (2 * from_rate)


def resample(
    waveform: Float[Tensor, "*batch time"], from_rate: int, to_rate: int, quality: str = "high"
) -> Float[Tensor, "*batch new_time"]:
    """Resamples the last axis; differentiable, linear, on any device.

    Args:
        waveform: samples; before and after it is silence.
        from_rate: Hz it has.
        to_rate: Hz it gets.
        quality: `"fast"` (aliases below -80 dB, passband to 0.82 of the lower Nyquist frequency), `"high"` (-125 dB,
            0.913, as soxr HQ) or `"best"` (-140 dB, 0.96).

    >>> resample(torch.ones(2, 8000), 8000, 16000).shape
    torch.Size([2, 16000])
    """
    if from_rate == to_rate:
        return waveform
    plan = _plan(from_rate, to_rate, quality)
    count = resampled_length(waveform.shape[-1], from_rate, to_rate)
    flat = waveform.reshape(math.prod(waveform.shape[:-1]), waveform.shape[-1])
    return plan.outputs(flat, 0, 0, count).reshape(*waveform.shape[:-1], count)


def resample_soxr(samples: np.ndarray, from_rate: int, to_rate: int, quality: str = "HQ") -> np.ndarray:
    """Resamples `(time)` or `(time, channel)` with soxr; as many samples as `resampled_length` says.

    Args:
        samples: float32 or float64.
        from_rate: Hz it has.
        to_rate: Hz it gets.
        quality: soxr's name: `"QQ"`, `"LQ"`, `"MQ"`, `"HQ"` or `"VHQ"`.
    """
    import soxr

    if from_rate == to_rate:
        return samples
    count = resampled_length(len(samples), from_rate, to_rate)
    result = soxr.resample(samples, from_rate, to_rate, quality=quality)[:count]
    if len(result) < count:
        result = np.pad(result, [(0, count - len(result))] + [(0, 0)] * (samples.ndim - 1))
    return result


class Resample(nn.Module):
    """`resample` with fixed rates, which carries lengths along and keeps the padding silent.

    >>> waveform, lengths = Resample(16000, 8000)(torch.randn(2, 1600), torch.tensor([1600, 800]))
    >>> waveform.shape, lengths.tolist()
    (torch.Size([2, 800]), [800, 400])
    """

    def __init__(self, from_rate: int, to_rate: int, quality: str = "high") -> None:
        super().__init__()
        self.from_rate, self.to_rate, self.quality = from_rate, to_rate, quality
        _plan(from_rate, to_rate, quality)

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Samples that come out."""
        return resampled_length(lengths, self.from_rate, self.to_rate)

    def forward(
        self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch new_time"], Int[Tensor, " batch"]]:
        """The resampled waveform and its lengths."""
        silent = zero_padding(waveform, lengths)
        new_lengths = self.output_lengths(lengths)
        return zero_padding(resample(silent, self.from_rate, self.to_rate, self.quality), new_lengths), new_lengths


class StreamingResampler:
    """Resamples a signal that comes in chunks of any size; the chunks' results joined are `resample` of the whole.

    >>> stream, whole = StreamingResampler(16000, 8000), torch.randn(1000)
    >>> parts = [stream.push(whole[:7]), stream.push(whole[7:]), stream.finish()]
    >>> torch.allclose(torch.cat(parts), resample(whole, 16000, 8000), atol=1e-6)
    True
    """

    def __init__(self, from_rate: int, to_rate: int, quality: str = "high") -> None:
        self.from_rate, self.to_rate, self.quality = from_rate, to_rate, quality
        self._plan = _plan(from_rate, to_rate, quality)
        self.reset()

    @property
    def latency(self) -> float:
        """Seconds by which a sample's result comes after the sample."""
        return 0.0 if self.from_rate == self.to_rate else self._plan.reach / self.from_rate

    def reset(self) -> None:
        """Forgets everything, ready for the next signal."""
        self._kept: Tensor | None = None
        self._kept_from = self._received = self._given = 0

    def push(self, chunk: Float[Tensor, "*batch time"]) -> Float[Tensor, "*batch new_time"]:
        """What is certain once this chunk is there."""
        if self.from_rate == self.to_rate:
            return chunk
        self._kept = chunk if self._kept is None else torch.cat([self._kept, chunk], dim=-1)
        self._received += chunk.shape[-1]
        # The last output whose window ends within what was received.
        ready = ((self._received - self._plan.reach) * self.to_rate) // self.from_rate
        return self._until(max(self._given, ready))

    def finish(self) -> Float[Tensor, "*batch new_time"]:
        """The rest, with silence after the signal; then as after `reset`."""
        if self._kept is None:
            return torch.zeros(0)
        rest = self._until(resampled_length(self._received, self.from_rate, self.to_rate))
        self.reset()
        return rest

    def _until(self, end: int) -> Tensor:
        assert self._kept is not None
        flat = self._kept.reshape(math.prod(self._kept.shape[:-1]), self._kept.shape[-1])
        result = self._plan.outputs(flat, self._kept_from, self._given, end)
        result = result.reshape(*self._kept.shape[:-1], result.shape[-1])
        self._given = max(self._given, end)
        keep_from = max(self._kept_from, self._given * self.from_rate // self.to_rate - self._plan.reach)
        self._kept = self._kept[..., keep_from - self._kept_from :]
        self._kept_from = keep_from
        return result


@dataclass(frozen=True)
class _Run:
    """Consecutive phases computed by one matrix product."""

    phase: int
    """The first of them."""
    offset: int
    """First input step that they read, relative to the row's."""
    kernel: Tensor
    """`(step, phase)`, float64."""

    def on(self, like: Tensor) -> Tensor:
        return _cast(self.kernel, like.dtype, like.device)


@lru_cache(maxsize=4096)
def _cast(kernel: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    return kernel.to(device, dtype)


@dataclass(frozen=True)
class _Plan:
    """A row is `stride` input steps and `phases` outputs; runs together make a row's outputs."""

    stride: int
    phases: int
    reach: int
    """Input steps on either side of an output that it may read."""
    runs: tuple[_Run, ...]

    def outputs(self, signal: Tensor, signal_from: int, first: int, end: int) -> Tensor:
        """Outputs `first` … `end - 1`, from `(batch, time)` whose first sample is input number `signal_from`.

        Samples that are not there count as zeros.
        """
        if end <= first or signal.shape[0] == 0:
            return signal.new_zeros(signal.shape[0], 0)
        low, high = first // self.phases, (end - 1) // self.phases + 1
        starts = [low * self.stride + run.offset for run in self.runs]
        begin = min(starts)
        stop = max((high - 1) * self.stride + run.offset + run.kernel.shape[0] for run in self.runs)
        signal = F.pad(signal, (signal_from - begin, stop - signal_from - signal.shape[1]))
        columns = []
        for run, start in zip(self.runs, starts, strict=True):
            width = run.phase + run.kernel.shape[1]
            # Rows in which this run has an output that is wanted; the others stay zero and are cut off below.
            skip = int(low * self.phases + width <= first)
            rows = high - low - skip - int((high - 1) * self.phases + run.phase >= end)
            if rows <= 0:
                columns.append(signal.new_zeros(signal.shape[0], high - low, run.kernel.shape[1]))
                continue
            stretch = signal[:, start - begin + skip * self.stride :].unfold(1, run.kernel.shape[0], self.stride)
            result = stretch[:, :rows] @ run.on(signal)
            columns.append(F.pad(result, (0, 0, skip, high - low - skip - rows)) if rows < high - low else result)
        joined = columns[0] if len(columns) == 1 else torch.cat(columns, dim=2)
        return joined.reshape(len(signal), -1)[:, first - low * self.phases : end - low * self.phases]


@lru_cache(maxsize=32)
def _plan(from_rate: int, to_rate: int, quality: str) -> _Plan:
    """The kernels for a pair of rates."""
    if quality not in QUALITIES:
        raise ConfigError(unknown_name("resampling quality", quality, QUALITIES))
    if from_rate < 1 or to_rate < 1 or from_rate != int(from_rate) or to_rate != int(to_rate):
        raise ConfigError(f"sample rates are whole numbers ≥ 1 Hz, got from_rate={from_rate} and to_rate={to_rate}")
    divisor = math.gcd(from_rate, to_rate)
    # Few phases are repeated until a row is worth a matrix product.
    repeat = max(1, _RUN // (to_rate // divisor))
    stride, phases = from_rate // divisor * repeat, to_rate // divisor * repeat
    attenuation, passband = QUALITIES[quality]
    lower = min(1.0, to_rate / from_rate)
    # Kaiser's design: half the taps for a transition from `passband` to 1, in units of the lower Nyquist frequency.
    half = (attenuation - 7.95) / (14.36 * (1 - passband)) / lower
    beta = 0.1102 * (attenuation - 8.7)
    cutoff = lower * (1 + passband) / 2
    reach = math.ceil(half) + 1
    runs = []
    count = math.ceil(phases / _RUN)
    edges = [round(index * phases / count) for index in range(count + 1)]
    for begin, end in itertools.pairwise(edges):
        positions = torch.arange(begin, end, dtype=torch.float64) * stride / phases
        offset = math.floor(float(positions[0]) - half)
        width = math.floor(float(positions[-1]) + half) + 1 - offset
        distance = torch.arange(offset, offset + width, dtype=torch.float64)[:, None] - positions
        kaiser = torch.special.i0(beta * (1 - (distance / half).square()).clamp(min=0).sqrt())
        kernel = cutoff * torch.sinc(cutoff * distance) * kaiser / torch.special.i0(torch.tensor(beta).double())
        runs.append(_Run(begin, offset, torch.where(distance.abs() <= half, kernel, 0.0)))
    return _Plan(stride, phases, reach, tuple(runs))
