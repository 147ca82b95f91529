"""PASE+: learned band-pass filters, convolutions, a quasi-recurrent layer, and skips to the end (arXiv:2001.09239).

Where we differ: what normalises the convolutions is group norm over an item's own frames, not BatchNorm, so that an item
comes out the same in any batch while training too (`norm="batch"` is the paper's, over valid frames only); zeros, not
reflections, stand around the signal, so that any item is long enough. Read `Pase.local`, then `_Top`.
"""

from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import Geometry, valid_mask, zero_padding
from sonorant.core.types import Features
from sonorant.encoders.stack import run_blocks
from sonorant.nn.linear import Linear
from sonorant.nn.norm import GroupNorm, build_norm
from sonorant.nn.qrnn import Qrnn
from sonorant.nn.sinc import SincConv
from sonorant.nn.transformer import Between

__all__ = ["Pase", "PaseConfig", "build", "pase_plus", "pase_tiny"]

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class PaseConfig:
    """A PASE+ encoder; the defaults are those of section 2.2 and of the authors' configuration."""

    sample_rate: int = 16000
    """Hz."""
    num_filters: int = 64
    """Band-pass filters."""
    filter_size: int = 251
    """Their taps, odd."""
    kernels: tuple[int, ...] = (20, 11, 11, 11, 11, 11, 11)
    """Steps that each convolution sees."""
    strides: tuple[int, ...] = (10, 2, 1, 2, 1, 2, 2)
    """Steps between its outputs: 160 samples, 10 ms, in all."""
    channels: tuple[int, ...] = (64, 128, 128, 256, 256, 512, 512)
    """Its channels."""
    recurrent_dim: int = 512
    """Width of the quasi-recurrent layer."""
    dim: int = 256
    """Width of the frames that come out."""
    skips: bool = True
    """What comes out of every block but the last is averaged, projected and added at the end."""
    norm: str = "group"
    """Behind each convolution and at the end: group, instance, or batch (the paper's)."""

    def __post_init__(self) -> None:
        for name in ("sample_rate", "num_filters", "recurrent_dim", "dim"):
            at_least(name, getattr(self, name), 1)
        if not self.kernels or not len(self.kernels) == len(self.strides) == len(self.channels):
            raise ConfigError(
                "kernels, strides and channels must hold one number a block, got "
                f"{len(self.kernels)}, {len(self.strides)} and {len(self.channels)}"
            )
        one_of("norm", self.norm, ("group", "instance", "batch"))


class _Block(nn.Module):
    """A filter bank or convolution, norm, and a rectifier with a learned slope below zero, on `(batch, channel, time)`."""

    def __init__(self, filters: nn.Module, geometry: Geometry, dim: int, norm: str) -> None:
        super().__init__()
        self.filters, self.geometry = filters, geometry
        self.norm, self.activation = build_norm(norm, dim), nn.PReLU(dim)

    def forward(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        padded = nn.functional.pad(values, (self.geometry.left, self.geometry.right))
        values, lengths = self.filters(padded), self.geometry.output_lengths(lengths)
        if isinstance(self.norm, GroupNorm):
            values = self.norm.channels_first(values, lengths)
        else:
            values = self.norm(values.transpose(1, 2), lengths).transpose(1, 2)
        values = self.activation(values)
        return values * valid_mask(lengths, values.shape[2])[:, None], lengths


class _Top(nn.Module):
    """The quasi-recurrent layer over the last convolution's channels, a projection, the skips, and a norm."""

    def __init__(self, config: PaseConfig) -> None:
        super().__init__()
        self.num_channels = config.channels[-1]
        self.recurrent = Qrnn(self.num_channels, config.recurrent_dim)
        self.project = Linear(config.recurrent_dim, config.dim)
        self.norm = build_norm(config.norm, config.dim)

    def forward(
        self, values: Float[Tensor, "batch frame local"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch frame dim"]:
        frames = self.project(self.recurrent(values[..., : self.num_channels], lengths))
        if values.shape[2] > self.num_channels:
            frames = frames + values[..., self.num_channels :]
        return self.norm(frames, lengths)


class Pase(nn.Module):
    """Waveforms to frames every 10 ms, centred on multiples of the hop.

    >>> Pase(pase_tiny())(torch.zeros(1, 1600), torch.tensor([1600])).values.shape
    torch.Size([1, 10, 32])
    """

    input = "waveform"
    num_layers = 1

    def __init__(self, config: PaseConfig) -> None:
        super().__init__()
        self.config, self.dim = config, config.dim
        sinc = SincConv(config.num_filters, config.filter_size, config.sample_rate)
        # The filters stand around the signal with zeros of their own, and give as many samples as come in.
        fronts = [_Block(_Filters(sinc), Geometry(), config.num_filters, config.norm)]
        widths = [config.num_filters, *config.channels]
        for index, (kernel, stride) in enumerate(zip(config.kernels, config.strides, strict=True)):
            conv = nn.Conv1d(widths[index], widths[index + 1], kernel, stride)
            geometry = Geometry.conv(kernel, stride, ((kernel - 1) // 2, kernel // 2))
            fronts.append(_Block(conv, geometry, widths[index + 1], config.norm))
        self.fronts = nn.ModuleList(fronts)
        self.skips = nn.ModuleList(
            Linear(width, config.dim, bias=False) for width in (widths[:-1] if config.skips else [])
        )
        # Steps of each block's output that stand for one frame.
        self.stretches = [prod(config.strides[index:]) for index in range(len(config.strides))]
        self.local_dim = config.channels[-1] + (config.dim if config.skips else 0)
        self.blocks = nn.ModuleList([_Top(config)])

    @property
    def geometry(self) -> Geometry:
        """Stride and sight of the convolutions, in samples."""
        whole = Geometry.conv(self.config.filter_size, 1, self.config.filter_size // 2)
        for front in self.fronts:
            whole = whole.then(front.geometry)  # type: ignore[arg-type]
        return whole

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out."""
        return self.geometry.frame_rate(self.config.sample_rate)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees by convolution, the one inside the quasi-recurrent layer included."""
        geometry = self.geometry
        return geometry.receptive_field + geometry.stride

    def output_lengths(self, lengths: Count) -> Count:
        """Frames that come out for `lengths` samples: one for each hop that has begun."""
        for front in self.fronts:
            lengths = front.geometry.output_lengths(lengths)  # type: ignore[union-attr,operator]
        return lengths

    def local(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> Features:
        """The last convolution's channels and, beside them, the sum of the skips."""
        if values.shape[1] == 0:
            values = nn.functional.pad(values, (0, 1))
        hidden, counts = zero_padding(values, lengths)[:, None], lengths
        seen = []
        for front in self.fronts:
            hidden, counts = front(hidden, counts)
            seen.append(hidden)
        num_frames = hidden.shape[2]
        frames = [hidden.transpose(1, 2)]
        if self.config.skips:
            parts = zip(self.skips, seen[:-1], self.stretches, strict=True)
            frames.append(torch.stack([skip(_averaged(early, num_frames, n)) for skip, early, n in parts]).sum(0))
        return Features(zero_padding(torch.cat(frames, dim=2), counts), counts, self.frame_rate)

    def embed(self, local: Features) -> Features:
        """The same."""
        return local

    def context(
        self, embedded: Features, layers: bool = False, between: Between | None = None
    ) -> Features | list[Features]:
        """The quasi-recurrent layer, with the skips added; see `run_blocks`."""
        return run_blocks(embedded, self.blocks, layers, between)

    def forward(
        self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch; `layers=True` returns what the convolutions make, and the end."""
        return self.context(self.embed(self.local(values, lengths)), layers)


class _Filters(nn.Module):
    """The filter bank on one channel."""

    def __init__(self, sinc: SincConv) -> None:
        super().__init__()
        self.sinc = sinc

    def forward(self, values: Float[Tensor, "batch one time"]) -> Float[Tensor, "batch filter time"]:
        return self.sinc(values[:, 0])


def _averaged(
    values: Float[Tensor, "batch channel time"], num_frames: int, stretch: int
) -> Float[Tensor, "batch frame channel"]:
    """Means over stretches of so many steps; zeros stand behind the last."""
    padded = nn.functional.pad(values, (0, num_frames * stretch - values.shape[2]))
    return padded.unflatten(2, (num_frames, stretch)).mean(3).transpose(1, 2)


def pase_plus(**changes: Any) -> PaseConfig:
    """The encoder of PASE+."""
    return replace(PaseConfig(), **changes)


def pase_tiny(**changes: Any) -> PaseConfig:
    """Few channels, for tests and demonstrations; no published size."""
    sizes: dict[str, Any] = {"num_filters": 16, "filter_size": 101, "recurrent_dim": 32, "dim": 32}
    sizes |= {"kernels": (20, 8, 5, 5), "strides": (10, 4, 2, 2), "channels": (16, 24, 32, 32)}
    return pase_plus(**{**sizes, **changes})


def build(config: PaseConfig) -> Pase:
    """The module of a configuration, with random weights."""
    return Pase(config)
