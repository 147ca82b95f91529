"""Encoders from waveforms inside the CTC recogniser: features of one sample each, and an encoder as its checkpoint tells it.

So a pre-trained encoder, with whatever front end it has, takes the place of features and encoder together.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.checkpoint import load_checkpoint, load_weights
from sonorant.core.config import one_of
from sonorant.core.lengths import Geometry, zero_padding
from sonorant.core.types import Features
from sonorant.encoders.checkpoint import KIND, described_module
from sonorant.encoders.surgery import freeze_all, freeze_layers

__all__ = ["FROZEN", "Samples", "WaveformEncoder", "WaveformEncoderConfig", "freeze", "load_into"]

FROZEN = ("", "front", "encoder")
"""What may rest in fine-tuning: nothing, all that lies before the blocks, the whole encoder."""


class Samples(nn.Module):
    """The waveform as features of one column, a frame a sample."""

    dim = 1

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.sample_rate, self.geometry = sample_rate, Geometry()

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return float(self.sample_rate)

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """As many as samples."""
        return lengths

    def forward(self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"] | None = None) -> Features:
        """`(batch, time, 1)`."""
        if lengths is None:
            lengths = torch.full((len(waveform),), waveform.shape[1], device=waveform.device)
        return Features(zero_padding(waveform, lengths)[:, :, None], lengths, self.frame_rate)


@dataclass(frozen=True, kw_only=True)
class WaveformEncoderConfig:
    """An encoder from waveforms."""

    encoder: dict[str, Any] = field(default_factory=dict)
    """As `encoders.checkpoint.describe_config` tells it."""
    input_frame_rate: float = 16000.0
    """Samples a second."""


class WaveformEncoder(nn.Module):
    """An encoder from waveforms that takes them as `Samples` gives them."""

    inner: Any

    def __init__(self, config: WaveformEncoderConfig) -> None:
        super().__init__()
        self.config = config
        inner: Any = described_module(config.encoder)
        self.inner, self.dim, self.num_layers = inner, int(inner.dim), int(inner.num_layers)

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out."""
        return float(self.inner.frame_rate)

    def output_lengths(self, lengths: Any) -> Any:
        """Frames for samples."""
        return self.inner.output_lengths(lengths)

    def forward(self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]) -> Features:
        """Frames of a padded batch."""
        return self.inner(values[:, :, 0], lengths)  # type: ignore[no-any-return]


def load_into(encoder: WaveformEncoder, folder: str | Path) -> None:
    """Weights and statistics of a trained encoder's checkpoint.

    Raises:
        CheckpointError: it is none, or does not fit.
    """
    load_weights(encoder.inner, load_checkpoint(folder, kind=KIND).weights, where=str(folder))


def freeze(encoder: WaveformEncoder, what: str) -> None:
    """Takes the gradient from a part of the encoder.

    Args:
        encoder: whose parameters.
        what: of `FROZEN`.
    """
    one_of("freeze", what, FROZEN)
    if what == "front":
        freeze_layers(encoder.inner, 0)
    elif what == "encoder":
        freeze_all(encoder.inner)
