"""What a probe must beat, beside spectral frames and random weights: the height of the voice."""

from typing import Any, Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.audio.pitch import f0
from sonorant.core.lengths import pad
from sonorant.core.types import Features

__all__ = ["VoicedPitch"]


class VoicedPitch(nn.Module):
    """The logarithm of the pitch of the voiced frames, one after another, as an encoder without layers.

    Its mean and deviation over an utterance are what a speaker probe could know of pitch alone. Frames are not where they
    were in time, so that nothing but utterances can be probed with it (`ProbeConfig(phones=False, words=False)`).

    Args:
        sample_rate: Hz.

    >>> import torch
    >>> tone = torch.sin(2 * torch.pi * 200 * torch.arange(16000) / 16000)[None]
    >>> values = VoicedPitch()(tone, torch.tensor([16000])).values
    >>> round(values.exp().mean().item())
    200
    """

    input: Literal["waveform"] = "waveform"
    num_layers = 0
    dim = local_dim = 1

    def __init__(self, sample_rate: int = 16000) -> None:
        super().__init__()
        self.sample_rate, self.hop = sample_rate, 0.01

    @property
    def frame_rate(self) -> float:
        """Frames a second, were all of them voiced."""
        return 1 / self.hop

    def output_lengths(self, lengths: Any) -> Any:
        """Frames for samples, were all of them voiced."""
        return lengths // round(self.hop * self.sample_rate)

    def forward(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"], layers: bool = False) -> Any:
        """Voiced frames of a padded batch; one frame of 0 for an item without any."""
        found = f0(values, self.sample_rate, lengths, hop=self.hop)
        rows = [row[row > 0].log()[:, None] for row in found.f0]
        frames, counts = pad([row if len(row) else row.new_zeros(1, 1) for row in rows])
        features = Features(frames, counts.to(values.device), self.frame_rate)
        return [features] if layers else features
