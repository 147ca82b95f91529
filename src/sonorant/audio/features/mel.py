"""Mel spectrograms as librosa computes them (Slaney's or HTK's scale), and Whisper's.

Read `mel_weights`, `Mel`, then `WhisperMel`, which is a `Mel` with its own edges and compression.
"""

import math
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.audio.features.fbank import power_spectrum
from sonorant.audio.frames import Edges, FramedFeatures, Framing, window
from sonorant.core.errors import ConfigError, DataError, unknown_name
from sonorant.core.lengths import Geometry, zero_padding
from sonorant.core.types import Features

__all__ = ["Mel", "WhisperMel", "hz_to_mel", "mel", "mel_to_hz", "mel_weights"]

MelScale = Literal["slaney", "htk"]

# Slaney's scale (Auditory Toolbox): 200/3 Hz a mel up to 1 kHz, above it 27 mels for a factor of 6.4.
_LINEAR, _BREAK, _LOG = 200.0 / 3, 1000.0, math.log(6.4) / 27


def hz_to_mel(hz: Float[Tensor, "*any"], scale: MelScale = "slaney") -> Float[Tensor, "*any"]:
    """Frequencies on a mel scale.

    >>> hz_to_mel(torch.tensor([1000.0])).tolist()
    [15.0]
    """
    if scale == "htk":
        return 2595.0 * torch.log10(1 + hz / 700.0)
    if scale != "slaney":
        raise ConfigError(unknown_name("mel scale", scale, ["slaney", "htk"]))
    above = _BREAK / _LINEAR + torch.log(hz.clamp(min=_BREAK) / _BREAK) / _LOG
    return torch.where(hz >= _BREAK, above, hz / _LINEAR)


def mel_to_hz(mels: Float[Tensor, "*any"], scale: MelScale = "slaney") -> Float[Tensor, "*any"]:
    """The inverse of `hz_to_mel`."""
    if scale == "htk":
        return 700.0 * (10 ** (mels / 2595.0) - 1)
    if scale != "slaney":
        raise ConfigError(unknown_name("mel scale", scale, ["slaney", "htk"]))
    above = _BREAK * torch.exp(_LOG * (mels - _BREAK / _LINEAR))
    return torch.where(mels >= _BREAK / _LINEAR, above, mels * _LINEAR)


def mel_weights(
    num_mels: int,
    n_fft: int,
    sample_rate: float,
    low_hz: float = 0.0,
    high_hz: float | None = None,
    scale: MelScale = "slaney",
    norm: bool = True,
) -> Float[Tensor, "freq mel"]:
    """Triangles that are straight in Hz between points evenly spaced in mel.

    Args:
        num_mels: triangles.
        n_fft: length of the transform.
        sample_rate: Hz.
        low_hz: where the first triangle begins.
        high_hz: where the last one ends; half the sample rate where None.
        scale: `"slaney"` or `"htk"`.
        norm: give each triangle the area 1 Hz, else the height 1.

    Returns:
        Weights in float64, `(n_fft // 2 + 1, num_mels)`. A triangle between two bins is empty, as in librosa.
    """
    nyquist = sample_rate / 2
    high = nyquist if high_hz is None else high_hz
    if not 0 <= low_hz < high <= nyquist:
        raise ConfigError(
            f"mel bands need 0 ≤ low_hz < high_hz ≤ {nyquist:g} Hz (half the sample rate), "
            f"got low_hz={low_hz:g} and high_hz={high:g}"
        )
    ends = hz_to_mel(torch.tensor([low_hz, high], dtype=torch.float64), scale)
    steps = torch.arange(num_mels + 2, dtype=torch.float64) / (num_mels + 1)
    points = mel_to_hz(ends[0] + steps * (ends[1] - ends[0]), scale)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None] * sample_rate / n_fft
    left, middle, right = points[:-2], points[1:-1], points[2:]
    weights = torch.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)).clamp(min=0)
    return weights * (2 / (right - left)) if norm else weights


class Mel(FramedFeatures):
    """Mel spectrogram, equal to `librosa.feature.melspectrogram` (with `edges="zero"`).

    Args:
        sample_rate: Hz.
        num_mels: mel bands.
        n_fft: length of the transform, samples.
        hop_length: samples between frames.
        win_length: samples of the periodic Hann window, centred in the transform; `n_fft` where None.
        low_hz: lower end of the first band, Hz.
        high_hz: upper end of the last band, Hz; half the sample rate where None.
        mel_scale: `"slaney"` or `"htk"`.
        norm: triangles of area 1 Hz (librosa's `norm="slaney"`) instead of height 1.
        power: of the magnitude: 2 for energy, 1 for magnitude.
        log_floor: the natural logarithm of what is not below this; no logarithm where None.
        edges: as in `Framing`.

    >>> features = Mel(num_mels=40, log_floor=1e-10)(torch.randn(2, 16000), torch.tensor([16000, 8000]))
    >>> features.values.shape, features.lengths.tolist()
    (torch.Size([2, 101, 40]), [101, 51])
    """

    weights: Tensor
    taps: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        num_mels: int = 80,
        n_fft: int = 512,
        hop_length: int = 160,
        win_length: int | None = None,
        low_hz: float = 0.0,
        high_hz: float | None = None,
        mel_scale: MelScale = "slaney",
        norm: bool = True,
        power: float = 2.0,
        log_floor: float | None = None,
        edges: Edges = "zero",
    ) -> None:
        size = win_length or n_fft
        if size > n_fft or power <= 0 or (log_floor is not None and log_floor <= 0):
            raise ConfigError(
                "Mel needs win_length ≤ n_fft, power > 0 and log_floor > 0, "
                f"got win_length={size}, n_fft={n_fft}, power={power} and log_floor={log_floor}"
            )
        super().__init__(Framing(n_fft, hop_length, edges), num_mels, sample_rate)
        self.power, self.log_floor = power, log_floor
        left = (n_fft - size) // 2
        taps = F.pad(window("hann", size, periodic=True), (left, n_fft - size - left))
        weights = mel_weights(num_mels, n_fft, sample_rate, low_hz, high_hz, mel_scale, norm)
        self.register_buffer("taps", taps, persistent=False)
        self.register_buffer("weights", weights.float(), persistent=False)

    def _rows(self, rows: Tensor) -> Tensor:
        power = power_spectrum(rows * self.taps)
        if self.power != 2:
            # The gradient of a root at zero is infinite: keep away from it by less than float32 resolves at full scale.
            power = power.clamp(min=1e-20).pow(self.power / 2)
        mels = power @ self.weights
        return mels if self.log_floor is None else mels.clamp(min=self.log_floor).log()


class WhisperMel(nn.Module):
    """Whisper's input (Radford et al., 2022, arXiv:2212.04356, section 2.2): log10 mel, cut 8 below an item's own peak.

    Equal to Whisper's own on the frames that hold signal; there the item is followed by silence up to 30 s, here by
    silence as far as the last window reaches, or, with `seconds=30`, as there.

    Args:
        num_mels: 80, or 128 from large-v3 on.
        seconds: silence that is put behind every item until it is so long; none where 0.
    """

    sample_rate = 16000

    def __init__(self, num_mels: int = 80, seconds: float = 0.0) -> None:
        super().__init__()
        self.num_samples = round(seconds * self.sample_rate)
        self.mel = Mel(self.sample_rate, num_mels, n_fft=400, hop_length=160, edges="reflect")
        self.dim = num_mels
        # The frame centred on the end itself is left out: `samples // 160` frames.
        self.geometry = Geometry(160, 400, left=200, right=40)

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return 100.0

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Frames for samples."""
        return self.geometry.output_lengths(lengths.clamp(min=self.num_samples))

    def forward(self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"] | None = None) -> Features:
        """Features of each item; zeros beyond an item's own frames.

        Raises:
            DataError: an item is longer than `seconds`.
        """
        if lengths is None:
            lengths = torch.full((waveform.shape[0],), waveform.shape[1], device=waveform.device)
        if self.num_samples:
            waveform, lengths = self._filled(waveform, lengths)
        silent = F.pad(zero_padding(waveform, lengths), (0, 200))
        frames = self.output_lengths(lengths)
        values = self.mel(silent, lengths + 200).values[:, : int(frames.max()) if len(frames) else 0]
        values = values.clamp(min=1e-10).log10()
        peak = values.masked_fill(zero_padding(torch.ones_like(values), frames) == 0, -10.0)
        peak = peak.amax(dim=(1, 2), keepdim=True) if values.shape[1] else values.new_zeros(len(values), 1, 1)
        return Features(zero_padding((torch.maximum(values, peak - 8) + 4) / 4, frames), frames, self.frame_rate)

    def _filled(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        longest = int(lengths.max()) if len(lengths) else 0
        if longest > self.num_samples:
            raise DataError(
                f"an item of {longest / self.sample_rate:.2f} s is longer than the {self.num_samples / self.sample_rate:g} s "
                "that items are filled up to: cut it first"
            )
        silent = zero_padding(waveform[:, : self.num_samples], lengths)
        filled = F.pad(silent, (0, self.num_samples - silent.shape[1]))
        return filled, torch.full_like(lengths, self.num_samples)


def mel(
    waveform: Float[Tensor, "*batch time"], sample_rate: int = 16000, **options: object
) -> Float[Tensor, "*batch frame dim"]:
    """Mel spectrogram of whole waveforms; `options` are `Mel`'s.

    >>> mel(torch.randn(16000), num_mels=64, hop_length=200).shape
    torch.Size([81, 64])
    """
    module = _mel(sample_rate, waveform.device, waveform.dtype, tuple(sorted(options.items())))
    values = module(waveform.reshape(-1, waveform.shape[-1])).values
    return values.reshape(*waveform.shape[:-1], *values.shape[1:])


@lru_cache(maxsize=8)
def _mel(sample_rate: int, device: torch.device, dtype: torch.dtype, options: tuple[tuple[str, Any], ...]) -> Mel:
    return Mel(sample_rate, **dict(options)).to(device, dtype)
