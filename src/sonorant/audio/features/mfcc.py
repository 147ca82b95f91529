"""Mel-frequency cepstra as Kaldi computes them."""

import math
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sonorant.audio.features.fbank import LOG_FLOOR, Energy, KaldiFrames, kaldi_mel, power_spectrum
from sonorant.audio.frames import FramedFeatures
from sonorant.core.errors import ConfigError

__all__ = ["Mfcc", "cosine_transform", "mfcc"]


def cosine_transform(num_mels: int, num_ceps: int, lifter: float = 0.0) -> Float[Tensor, "mel cepstrum"]:
    """The orthonormal type-2 cosine transform, its columns weighted by 1 + Q/2 · sin(πn/Q) where Q = `lifter` > 0."""
    rows = torch.arange(num_mels, dtype=torch.float64)[:, None] + 0.5
    order = torch.arange(num_ceps, dtype=torch.float64)
    matrix = torch.cos(math.pi / num_mels * rows * order) * math.sqrt(2 / num_mels)
    matrix[:, 0] = math.sqrt(1 / num_mels)
    if lifter:
        matrix = matrix * (1 + lifter / 2 * torch.sin(math.pi * order / lifter))
    return matrix


class Mfcc(FramedFeatures):
    """Mel-frequency cepstral coefficients, equal to Kaldi's with dither off; pre-emphasis 0.97, DC removed.

    Args:
        sample_rate: Hz.
        num_ceps: coefficients, the zeroth one included.
        num_mels: mel bands beneath.
        lifter: Q of the weights on the cepstra; 0 for none.
        energy: what stands in place of the zeroth coefficient: log energy, `"raw"` or `"windowed"`; `"none"` leaves it.
        low_hz: lower end of the first band, Hz.
        high_hz: upper end of the last band, Hz; None or 0 for half the sample rate, negative counts down from there.
        frame_length: seconds.
        hop: seconds.
        window: one of `sonorant.audio.frames.WINDOWS`.
        snip_edges: only frames that fit; else as many as there are hops, over a mirrored signal.
        scale: factor on the waveform; see `Fbank`.
    """

    mel: Tensor
    transform: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        num_ceps: int = 13,
        num_mels: int = 23,
        lifter: float = 22.0,
        energy: Energy = "raw",
        low_hz: float = 20.0,
        high_hz: float | None = None,
        frame_length: float = 0.025,
        hop: float = 0.01,
        window: str = "povey",
        snip_edges: bool = True,
        scale: float = 1.0,
    ) -> None:
        if not 0 < num_ceps <= num_mels:
            raise ConfigError(f"num_ceps must lie in 1 … num_mels, got num_ceps={num_ceps} and num_mels={num_mels}")
        if energy not in ("none", "raw", "windowed"):
            raise ConfigError(f"energy must be none, raw or windowed, got {energy!r}")
        frames = KaldiFrames(sample_rate, frame_length, hop, window, snip_edges=snip_edges, scale=scale)
        super().__init__(frames.framing, num_ceps, sample_rate)
        self.frames, self.energy = frames, energy
        weights = kaldi_mel(num_mels, self.frames.n_fft, sample_rate, low_hz, high_hz)
        self.register_buffer("mel", weights.float(), persistent=False)
        self.register_buffer("transform", cosine_transform(num_mels, num_ceps, lifter).float(), persistent=False)

    def _rows(self, rows: Tensor) -> Tensor:
        frames = self.frames(rows)
        cepstra = (power_spectrum(frames) @ self.mel).clamp(min=LOG_FLOOR).log() @ self.transform
        if self.energy == "none":
            return cepstra
        return torch.cat([self.frames.log_energy(rows, frames, self.energy), cepstra[:, 1:]], dim=1)


def mfcc(
    waveform: Float[Tensor, "*batch time"], sample_rate: int = 16000, **options: object
) -> Float[Tensor, "*batch frame dim"]:
    """Mel-frequency cepstra of whole waveforms; `options` are `Mfcc`'s.

    >>> mfcc(torch.randn(2, 8000), 8000).shape
    torch.Size([2, 98, 13])
    """
    module = _mfcc(sample_rate, waveform.device, waveform.dtype, tuple(sorted(options.items())))
    values = module(waveform.reshape(-1, waveform.shape[-1])).values
    return values.reshape(*waveform.shape[:-1], *values.shape[1:])


@lru_cache(maxsize=8)
def _mfcc(sample_rate: int, device: torch.device, dtype: torch.dtype, options: tuple[tuple[str, Any], ...]) -> Mfcc:
    return Mfcc(sample_rate, **dict(options)).to(device, dtype)
