"""A waveform encoder of a few thousand weights that keeps the contract of encoders; for tests of what stands on encoders."""

from typing import Any

import torch
from torch import Tensor, nn

from sonorant.core.types import Features
from sonorant.encoders.stack import run_blocks
from sonorant.nn.masking import attention_mask
from sonorant.nn.strided import StridedConvs
from sonorant.nn.transformer import TransformerLayer

__all__ = ["SAMPLE_RATE", "TinyEncoder", "constant"]

SAMPLE_RATE = 1000
"""Hz: with a hop of 20 samples, 50 frames a second."""


class _Block(nn.Module):
    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.layer = TransformerLayer(dim, 2, 2 * dim, dropout, position="rotary")

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        return self.layer(values, attention_mask(lengths, values.shape[1]))


class TinyEncoder(nn.Module):
    """Two convolutions, a norm and a projection, Transformer layers with rotary positions."""

    input = "waveform"
    frame_rate = 50.0

    def __init__(self, dim: int = 16, num_layers: int = 3, local_dim: int = 12, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim, self.local_dim, self.num_layers = dim, local_dim, num_layers
        self.convs = StridedConvs(local_dim, (10, 4), (5, 4), norm="layer", activation="gelu")
        self.norm, self.project = nn.LayerNorm(local_dim), nn.Linear(local_dim, dim)
        self.blocks = nn.ModuleList(_Block(dim, dropout) for _ in range(num_layers))

    @property
    def receptive_field(self) -> int:
        return self.convs.geometry.receptive_field

    def output_lengths(self, lengths: Any) -> Any:
        return self.convs.output_lengths(lengths)

    def local(self, values: Tensor, lengths: Tensor) -> Features:
        frames, lengths = self.convs(values, lengths)
        return Features(frames, lengths, self.frame_rate)

    def embed(self, local: Features) -> Features:
        return Features(self.project(self.norm(local.values)), local.lengths, local.frame_rate)

    def context(self, embedded: Features, layers: bool = False, between: Any = None) -> Any:
        return run_blocks(embedded, self.blocks, layers, between)

    def forward(self, values: Tensor, lengths: Tensor, layers: bool = False) -> Any:
        return self.context(self.embed(self.local(values, lengths)), layers)


def constant(encoder: nn.Module) -> nn.Module:
    """Makes the encoder give the same frame whatever it hears."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
    return encoder
