"""Log mel energies as NVIDIA's NeMo makes them: the input of its Fast Conformers, each band normalised over its item."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.audio.features.mel import Mel
from sonorant.audio.frames import window
from sonorant.core.lengths import Geometry, valid_mask, zero_padding
from sonorant.core.types import Features

__all__ = ["NemoMel"]

_GUARD = 2.0**-24
_EPS = 1e-5


class NemoMel(nn.Module):
    """Pre-emphasis, Slaney's mel bands, logarithm, and mean 0 and variance 1 of each band over the item's own frames.

    Args:
        num_mels: mel bands; 80, or 128 in some larger models.
        preemphasis: how much of the sample before is taken from each sample.

    >>> NemoMel()(torch.randn(1, 16000)).values.shape
    torch.Size([1, 100, 80])
    """

    sample_rate = 16000

    def __init__(self, num_mels: int = 80, preemphasis: float = 0.97) -> None:
        super().__init__()
        self.mel = Mel(self.sample_rate, num_mels, n_fft=512, hop_length=160, win_length=400)
        # A symmetric window, in the middle of the transform.
        self.mel.register_buffer("taps", F.pad(window("hann", 400), (56, 56)), persistent=False)
        self.dim, self.preemphasis = num_mels, preemphasis
        # The frame centred on the end itself is left out: `samples // 160` frames.
        self.geometry = Geometry(160, 512, left=256, right=96)

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return 100.0

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Frames for samples."""
        return self.geometry.output_lengths(lengths)

    def forward(self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"] | None = None) -> Features:
        """Features of each item; zeros beyond an item's own frames."""
        if lengths is None:
            lengths = torch.full((waveform.shape[0],), waveform.shape[1], device=waveform.device)
        waveform = zero_padding(waveform, lengths)
        emphasised = waveform - self.preemphasis * F.pad(waveform[:, :-1], (1, 0))
        frames = self.output_lengths(lengths)
        energies = self.mel(emphasised, lengths).values[:, : int(frames.max()) if len(frames) else 0]
        values = (energies + _GUARD).log()
        inside = valid_mask(frames, values.shape[1])[..., None]
        # In double precision: a sum over padding zeros may round otherwise than without them.
        count = frames.double()[:, None, None]
        mean = values.double().masked_fill(~inside, 0).sum(1, keepdim=True) / count.clamp(min=1)
        centred = (values - mean).masked_fill(~inside, 0)
        std = (centred.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
        return Features((centred / (std + _EPS)).to(values.dtype), frames, self.frame_rate)
