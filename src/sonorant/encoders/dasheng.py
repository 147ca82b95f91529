"""Dasheng (Dinkel et al., 2024, arXiv:2406.06992): a masked autoencoder whose patches hold all bands of four frames.

A `PatchEncoder` of one row: 25 frames a second from 100 log-mel frames of 64 bands, normalised band by band by running
statistics; learned positions for 10.08 s, and longer items in stretches of that, as the authors' code has it. Their log-mel
is `front()`; their checkpoints' names stand in `encoders/keys/dasheng.py`. It is trained by `objectives.masked_patches`.

Where we differ: the last stretch of a long item is as long as it is, where theirs is filled up with zeros that are attended
to; an item is then the same in any batch.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.audio.features.mel import Mel
from sonorant.core.lengths import valid_mask, zero_padding
from sonorant.core.types import Features
from sonorant.encoders.patch import PatchConfig, PatchEncoder

__all__ = ["DashengMel", "build", "dasheng_06b", "dasheng_12b", "dasheng_base", "dasheng_tiny"]


class DashengMel(nn.Module):
    """Dasheng's input: 64 mel energies in decibels, at most 120 below the item's peak (section 3.1).

    >>> DashengMel()(torch.randn(1, 16000)).values.shape
    torch.Size([1, 101, 64])
    """

    sample_rate = 16000
    dim = 64
    frame_rate = 100.0

    def __init__(self) -> None:
        super().__init__()
        self.mel = Mel(self.sample_rate, self.dim, n_fft=512, mel_scale="htk", norm=False, edges="reflect")
        self.geometry = self.mel.geometry

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Frames for samples."""
        return self.geometry.output_lengths(lengths)

    def forward(self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"] | None = None) -> Features:
        """Features of each item; zeros beyond an item's own frames."""
        energies = self.mel(waveform, lengths)
        decibels = 10 * energies.values.clamp(min=1e-10).log10()
        valid = valid_mask(energies.lengths, decibels.shape[1])[..., None]
        peak = decibels.masked_fill(~valid, -100.0).amax(dim=(1, 2), keepdim=True)
        values = zero_padding(torch.maximum(decibels, peak - 120), energies.lengths)
        return Features(values, energies.lengths, self.frame_rate)


def dasheng_base(**changes: Any) -> PatchConfig:
    """85 M parameters (table 1)."""
    shape: dict[str, Any] = {"input_dim": 64, "patch": (64, 4), "stride": (64, 4), "num_extra": 0, "input_norm": True}
    place: dict[str, Any] = {"position": "separate", "max_columns": 252, "cut_long": True}
    return PatchConfig(**{**shape, **place, **changes})


def dasheng_06b(**changes: Any) -> PatchConfig:
    """0.63 B parameters (table 1)."""
    return dasheng_base(**{"dim": 1280, "num_layers": 32, "num_heads": 16, "ffn_dim": 5120, **changes})


def dasheng_12b(**changes: Any) -> PatchConfig:
    """1.13 B parameters (table 1)."""
    return dasheng_base(**{"dim": 1536, "num_layers": 40, "num_heads": 24, "ffn_dim": 6144, **changes})


def dasheng_tiny(**changes: Any) -> PatchConfig:
    """Two narrow layers, for tests and demonstrations; no published size."""
    return dasheng_base(**{"dim": 64, "num_layers": 2, "num_heads": 2, "ffn_dim": 128, **changes})


def build(config: PatchConfig) -> PatchEncoder:
    """The module of a configuration, with random weights."""
    return PatchEncoder(config)
