"""Log mel filterbank energies as Kaldi computes them.

Read `kaldi_mel` (the triangles), `KaldiFrames` (DC removal, pre-emphasis and window in one pass), `fbank`, `Fbank`.
"""

from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sonorant.audio.frames import FramedFeatures, Framing, window
from sonorant.core.errors import ConfigError

__all__ = ["LOG_FLOOR", "Energy", "Fbank", "KaldiFrames", "fbank", "kaldi_mel", "mel_scale", "power_spectrum"]

Energy = Literal["none", "raw", "windowed"]

# Kaldi's floor of everything that is logged: the distance from 1 to the next float.
LOG_FLOOR = torch.finfo(torch.float32).eps


def mel_scale(hz: Tensor | float) -> Float[Tensor, "*batch"]:
    """Kaldi's mels of frequencies in Hz, in double precision: 1127 log(1 + f/700)."""
    return 1127.0 * torch.log1p(torch.as_tensor(hz, dtype=torch.float64) / 700.0)


def kaldi_mel(
    num_mels: int,
    n_fft: int,
    sample_rate: float,
    low_hz: float = 20.0,
    high_hz: float | None = None,
    empty_bands: bool = False,
) -> Float[Tensor, "freq mel"]:
    """Kaldi's triangles, straight on the mel scale; the bin at the Nyquist frequency has no weight.

    Args:
        num_mels: triangles.
        n_fft: length of the transform.
        sample_rate: Hz.
        low_hz: where the first triangle begins.
        high_hz: where the last one ends; the Nyquist frequency where None, below it by `-high_hz` where negative.
        empty_bands: let triangles be that no bin falls into.

    Returns:
        Weights in float64, `(n_fft // 2 + 1, num_mels)`.

    Raises:
        ConfigError: a band beyond the Nyquist frequency, or, unless `empty_bands`, a triangle so narrow that no bin falls
            into it.
    """
    nyquist = sample_rate / 2
    high = nyquist if not high_hz else high_hz if high_hz > 0 else nyquist + high_hz
    if not 0 <= low_hz < high <= nyquist:
        raise ConfigError(
            f"mel bands need 0 ≤ low_hz < high_hz ≤ {nyquist:g} Hz (half the sample rate), "
            f"got low_hz={low_hz:g} and high_hz={high:g}"
        )
    low_mel, high_mel = mel_scale(low_hz), mel_scale(high)
    step = (high_mel - low_mel) / (num_mels + 1)
    left = low_mel + step * torch.arange(num_mels, dtype=torch.float64)
    bins = mel_scale(torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft)[:, None]
    weights = torch.minimum((bins - left) / step, (left + 2 * step - bins) / step).clamp(min=0)
    weights[-1] = 0
    empty = (weights.sum(0) == 0).nonzero().flatten().tolist()
    if empty and not empty_bands:
        raise ConfigError(
            f"mel bands {empty} of {num_mels} hold no bin of an FFT of {n_fft} at {sample_rate:g} Hz; "
            "take fewer num_mels or a longer frame_length"
        )
    return weights


class KaldiFrames(nn.Module):
    """Frames → windowed frames and their log energy, as Kaldi's `FeatureWindowFunction`.

    Mean removal, pre-emphasis x_i - a x_{i-1} (with x_{-1} = x_0) and the window w are linear, so they fold:
    y_i = w_i x_i - a w_i x_{i-1} - (1 - a) w_i m, where m is the frame's mean.
    """

    current: Tensor
    previous: Tensor
    mean: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        frame_length: float = 0.025,
        hop: float = 0.01,
        window_name: str = "povey",
        preemphasis: float = 0.97,
        remove_dc: bool = True,
        snip_edges: bool = True,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.sample_rate, self.remove_dc, self.scale = sample_rate, remove_dc, scale
        size, step = round(sample_rate * frame_length), round(sample_rate * hop)
        if not 0 <= preemphasis <= 1:
            raise ConfigError(f"preemphasis must lie in [0, 1], got {preemphasis}")
        self.framing = Framing(size, step, "snip" if snip_edges else "mirror")
        self.n_fft = 1 << (size - 1).bit_length()
        taps = window(window_name, size, dtype=torch.float64) * scale
        current, previous = taps.clone(), taps * -preemphasis
        current[0] *= 1 - preemphasis
        previous[0] = 0
        self.register_buffer("current", current.float(), persistent=False)
        self.register_buffer("previous", previous.float()[1:], persistent=False)
        self.register_buffer("mean", (taps * -(1 - preemphasis)).float(), persistent=False)
        self.emphasised = preemphasis > 0

    def forward(self, rows: Float[Tensor, "frame time"]) -> Float[Tensor, "frame n_fft"]:
        """Windowed frames, padded with zeros to the length of the transform."""
        size = self.framing.size
        frames = F.pad(rows * self.current, (0, self.n_fft - size))
        if self.emphasised:
            frames[:, 1:size].addcmul_(rows[:, :-1], self.previous)
        if self.remove_dc:
            frames[:, :size].addcmul_(rows.mean(1, keepdim=True), self.mean)
        return frames

    def log_energy(
        self, rows: Float[Tensor, "frame time"], frames: Float[Tensor, "frame n_fft"], energy: Energy
    ) -> Float[Tensor, "frame one"]:
        """Log of the sum of squares, before (`"raw"`) or after (`"windowed"`) pre-emphasis and window."""
        if energy == "raw":
            centred = rows - rows.mean(1, keepdim=True) if self.remove_dc else rows
            total = (centred * self.scale).square().sum(1, keepdim=True)
        else:
            total = frames.square().sum(1, keepdim=True)
        return total.clamp(min=LOG_FLOOR).log()


def power_spectrum(frames: Float[Tensor, "frame time"], n_fft: int | None = None) -> Float[Tensor, "frame freq"]:
    """Squared magnitude of the bins of each row, which is padded with zeros to `n_fft`."""
    spectrum = torch.fft.rfft(frames, n=n_fft)
    return spectrum.real.square() + spectrum.imag.square()


class Fbank(FramedFeatures):
    """Log mel filterbank energies, equal to Kaldi's with dither off.

    Args:
        sample_rate: Hz.
        num_mels: mel bands.
        low_hz: lower end of the first band, Hz.
        high_hz: upper end of the last band, Hz; None or 0 for half the sample rate, negative counts down from there.
        frame_length: seconds.
        hop: seconds.
        window: one of `sonorant.audio.frames.WINDOWS`.
        preemphasis: coefficient of the first difference.
        remove_dc: take each frame's mean out.
        snip_edges: only frames that fit; else as many as there are hops, over a mirrored signal.
        energy: a first column with the log energy: `"none"`, `"raw"` (Kaldi's `raw_energy`) or `"windowed"`.
        scale: factor on the waveform. Kaldi's own models expect 16-bit integers: 32768; toolkits of its successors 1.
        empty_bands: let bands be that are too narrow for the transform and always hold the floor, as one does of the 128
            that models of sounds take.

    >>> features = Fbank(num_mels=40)(torch.randn(2, 16000), torch.tensor([16000, 8000]))
    >>> features.values.shape, features.lengths.tolist(), features.frame_rate
    (torch.Size([2, 98, 40]), [98, 48], 100.0)
    """

    mel: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        num_mels: int = 80,
        low_hz: float = 20.0,
        high_hz: float | None = None,
        frame_length: float = 0.025,
        hop: float = 0.01,
        window: str = "povey",
        preemphasis: float = 0.97,
        remove_dc: bool = True,
        snip_edges: bool = True,
        energy: Energy = "none",
        scale: float = 1.0,
        empty_bands: bool = False,
    ) -> None:
        if energy not in ("none", "raw", "windowed"):
            raise ConfigError(f"energy must be none, raw or windowed, got {energy!r}")
        frames = KaldiFrames(sample_rate, frame_length, hop, window, preemphasis, remove_dc, snip_edges, scale)
        super().__init__(frames.framing, num_mels + (energy != "none"), sample_rate)
        self.frames, self.energy = frames, energy
        weights = kaldi_mel(num_mels, self.frames.n_fft, sample_rate, low_hz, high_hz, empty_bands)
        self.register_buffer("mel", weights.float(), persistent=False)

    def _rows(self, rows: Tensor) -> Tensor:
        frames = self.frames(rows)
        mels = (power_spectrum(frames) @ self.mel).clamp(min=LOG_FLOOR).log()
        if self.energy == "none":
            return mels
        return torch.cat([self.frames.log_energy(rows, frames, self.energy), mels], dim=1)


def fbank(
    waveform: Float[Tensor, "*batch time"], sample_rate: int = 16000, **options: object
) -> Float[Tensor, "*batch frame dim"]:
    """Log mel filterbank energies of whole waveforms; `options` are `Fbank`'s.

    >>> fbank(torch.randn(16000), num_mels=23).shape
    torch.Size([98, 23])
    """
    module = _fbank(sample_rate, waveform.device, waveform.dtype, tuple(sorted(options.items())))
    values = module(waveform.reshape(-1, waveform.shape[-1])).values
    return values.reshape(*waveform.shape[:-1], *values.shape[1:])


@lru_cache(maxsize=8)
def _fbank(sample_rate: int, device: torch.device, dtype: torch.dtype, options: tuple[tuple[str, Any], ...]) -> Fbank:
    return Fbank(sample_rate, **dict(options)).to(device, dtype)
