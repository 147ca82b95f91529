"""Mel energies in decibels, cut off below an item's own peak: torchaudio's, which models of sounds are trained on."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.audio.features.mel import Mel
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import valid_mask, zero_padding
from sonorant.core.types import Features

__all__ = ["DecibelMel"]


class DecibelMel(nn.Module):
    """Mel energies of the HTK scale in dB, at most `range_db` below an item's peak (Dasheng's input, arXiv:2406.06992).

    Where the reference, torchaudio's `AmplitudeToDB`, takes the peak of a batch, this takes that of each item.

    Args:
        num_mels: mel bands.
        range_db: what is softer is raised to this much below the peak.

    >>> DecibelMel()(torch.randn(1, 16000)).values.shape
    torch.Size([1, 101, 64])
    """

    sample_rate = 16000

    def __init__(self, num_mels: int = 64, range_db: float = 120.0) -> None:
        super().__init__()
        if range_db <= 0:
            raise ConfigError(f"range_db must be above 0, got {range_db}")
        self.mel = Mel(self.sample_rate, num_mels, n_fft=512, mel_scale="htk", norm=False, edges="reflect")
        self.geometry = self.mel.geometry
        self.dim, self.range_db = num_mels, range_db

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return 100.0

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Frames for samples."""
        return self.geometry.output_lengths(lengths)

    def forward(self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"] | None = None) -> Features:
        """Features of each item; zeros beyond an item's own frames."""
        energies = self.mel(waveform, lengths)
        decibels = 10 * energies.values.clamp(min=1e-10).log10()
        beyond = ~valid_mask(energies.lengths, decibels.shape[1])[..., None]
        peak = decibels.masked_fill(beyond, -100.0).flatten(1).amax(1)  # even an item of no samples has a frame
        values = torch.maximum(decibels, peak[:, None, None] - self.range_db)
        return Features(zero_padding(values, energies.lengths), energies.lengths, self.frame_rate)
