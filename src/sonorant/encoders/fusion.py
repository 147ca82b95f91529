"""Two streams of features into one, such as log-mel and what a pre-trained encoder made of the same audio
(arXiv:2404.12628): by addition at one frame rate, or by attention, which needs no common rate.

A fusion is called with two `Features` and gives `Features` of width `fusion.dim`. The catalogue `FUSIONS` stands at the end.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sonorant.core.errors import ConfigError, unknown_name
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features
from sonorant.nn.attention import attend, attention_weights
from sonorant.nn.convolution import Subsampling1d
from sonorant.nn.linear import Linear
from sonorant.nn.masking import attention_mask
from sonorant.nn.position import sinusoids

__all__ = ["FUSIONS", "CrossAttentionFusion", "FramewiseAddition", "build_fusion"]


class FramewiseAddition(nn.Module):
    """Both streams thinned out to one frame rate by convolutions, and added.

    Args:
        dims: widths of the streams, such as 80 (log-mel) and 768.
        dim: width that comes out.
        frame_rates: of the streams, in frames a second; each is the rate that comes out times a power of two.
        frame_rate: that comes out.

    An item gets the frames that both streams have.
    """

    def __init__(
        self,
        dims: tuple[int, int],
        dim: int,
        frame_rates: tuple[float, float] = (100.0, 50.0),
        frame_rate: float = 25.0,
    ) -> None:
        super().__init__()
        self.dim, self.frame_rate, self.frame_rates = dim, frame_rate, frame_rates
        self.fronts = nn.ModuleList(
            # Padded, so that frame i stands at time i / frame_rate in both streams.
            Subsampling1d(own, dim, [(3, 1)] + [(3, 2)] * _halvings(rate, frame_rate))
            for own, rate in zip(dims, frame_rates, strict=True)
        )

    def forward(self, first: Features, second: Features) -> Features:
        streams = []
        for front, features, rate in zip(self.fronts, (first, second), self.frame_rates, strict=True):
            if abs(features.frame_rate - rate) > 1e-3 * rate:
                raise ConfigError(f"this fusion was built for {rate} frames a second, got {features.frame_rate}")
            streams.append(front(features.values, features.lengths))
        (left, left_lengths), (right, right_lengths) = streams
        lengths = torch.minimum(left_lengths, right_lengths)
        num_frames = torch.sym_min(left.shape[1], right.shape[1])
        total = left[:, :num_frames] + right[:, :num_frames]
        return Features(zero_padding(total, lengths), lengths, self.frame_rate)


def _halvings(rate: float, target: float) -> int:
    factor = round(rate / target)
    if factor < 1 or abs(rate / target - factor) > 1e-3 or factor & (factor - 1):
        raise ConfigError(f"{rate} frames a second are not {target} times a power of two; choose another frame_rate")
    return factor.bit_length() - 1


class CrossAttentionFusion(nn.Module):
    """Frames of the first stream ask the second, whose frame rate and length may be others; with a residual.

    Args:
        dims: widths of the streams.
        dim: width that comes out; the first stream is projected where it differs.
        num_heads: must divide `dim`.
        positions: tell both sides the time of their frames (sinusoids), so that like may look at what is near.
    """

    def __init__(self, dims: tuple[int, int], dim: int, num_heads: int = 4, positions: bool = True) -> None:
        super().__init__()
        if dim % num_heads:
            raise ConfigError(f"num_heads must divide dim, got num_heads={num_heads} and dim={dim}")
        self.dim, self.num_heads, self.positions = dim, num_heads, positions
        self.project = nn.Identity() if dims[0] == dim else Linear(dims[0], dim)
        self.norm, self.other_norm = nn.LayerNorm(dim), nn.LayerNorm(dims[1])
        self.query, self.key = Linear(dim, dim), Linear(dims[1], dim)
        self.value, self.output = Linear(dims[1], dim), Linear(dim, dim)

    def forward(self, first: Features, second: Features) -> Features:
        values = self.project(zero_padding(first.values, first.lengths))
        query, key, other = self._heads(values, first, second)
        value = self._split(self.value(other))
        mask = attention_mask(second.lengths, other.shape[1])
        seen = attend(query, key, value, mask=mask).transpose(1, 2).flatten(2)
        return replace(first, values=zero_padding(values + self.output(seen), first.lengths))

    def weights(self, first: Features, second: Features) -> Float[Tensor, "batch head query key"]:
        """The attention map, for those who want to see whether it follows time."""
        query, key, other = self._heads(self.project(zero_padding(first.values, first.lengths)), first, second)
        return attention_weights(query, key, mask=attention_mask(second.lengths, other.shape[1]))

    def _heads(self, values: Tensor, first: Features, second: Features) -> tuple[Tensor, Tensor, Tensor]:
        other = second.values
        if other.shape[1] == 0:  # there must be something to look at; it is masked down to one frame of zeros
            other = nn.functional.pad(other, (0, 0, 0, 1))
        other = self.other_norm(zero_padding(other, second.lengths))
        query, key = self.query(self.norm(values)), self.key(other)
        if self.positions:
            query = query + self._times(query, 1.0)
            key = key + self._times(key, first.frame_rate / second.frame_rate)
        return self._split(query) * (self.dim // self.num_heads) ** -0.5, self._split(key), other

    def _times(self, values: Tensor, spacing: float) -> Tensor:
        """Sinusoids of the time, in frames of the first stream, the same in every head."""
        steps = torch.arange(values.shape[1], device=values.device) * spacing
        return sinusoids(steps, self.dim // self.num_heads).repeat(1, self.num_heads).to(values.dtype)

    def _split(self, values: Tensor) -> Tensor:
        return values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


FUSIONS: dict[str, Callable[..., nn.Module]] = {"addition": FramewiseAddition, "cross_attention": CrossAttentionFusion}
"""Name → builder from (dims, dim) and options."""


def build_fusion(name: str, dims: tuple[int, int], dim: int, **options: Any) -> nn.Module:
    """A fusion of two streams by its name in `FUSIONS`.

    Raises:
        ConfigError: unknown name, or options that do not fit.
    """
    if name not in FUSIONS:
        raise ConfigError(unknown_name("fusion", name, FUSIONS))
    return FUSIONS[name](dims, dim, **options)
