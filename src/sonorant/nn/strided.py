"""Strided convolutions over the waveform: the front end of CPC and of the first wav2vecs, whole and in chunks.

Read `StridedConvs.forward`, then `StridedStream`, which gives the same frames from chunks of any size.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.core.lengths import Geometry, valid_mask, zero_padding
from sonorant.nn.norm import GroupNorm, LayerNorm

__all__ = ["ConvNorm", "StridedConvs", "StridedStream", "build_activation", "conv_norm"]

Count = TypeVar("Count", int, Tensor)
ConvNorm = Literal["none", "layer", "group"]
"""What stands behind a convolution: nothing, a norm of each frame, or one of the whole item (one group)."""


def build_activation(name: str) -> nn.Module:
    """relu or gelu."""
    if name not in ("relu", "gelu"):
        raise ConfigError(f"activation must be relu or gelu, got '{name}'")
    return nn.ReLU() if name == "relu" else nn.GELU()


def conv_norm(name: str, dim: int) -> nn.Module | None:
    """What stands behind a convolution: nothing, a norm of each frame ("layer"), or of a whole item ("group", one group)."""
    if name not in ("none", "layer", "group"):
        raise ConfigError(f"norm must be none, layer or group, got '{name}'")
    return None if name == "none" else LayerNorm(dim) if name == "layer" else GroupNorm(1, dim)


class StridedConvs(nn.Module):
    """Convolution, norm, activation, several times over, from samples to frames.

    Args:
        dim: channels.
        kernels: steps that each layer sees.
        strides: steps from one output to the next, of each layer.
        paddings: zeros on either side of each layer's input; none where empty.
        norm: as in `conv_norm`. Statistics of "group" are taken over the item's own frames.
        activation: relu or gelu.
        bias: of the convolutions.
        log_compression: log(1 + |x|) of what comes out (wav2vec's code).
    """

    def __init__(
        self,
        dim: int,
        kernels: Sequence[int],
        strides: Sequence[int],
        paddings: Sequence[int] = (),
        *,
        norm: str = "none",
        activation: str = "relu",
        bias: bool = True,
        log_compression: bool = False,
    ) -> None:
        super().__init__()
        paddings = paddings or [0] * len(kernels)
        if not kernels or not len(kernels) == len(strides) == len(paddings):
            raise ConfigError(
                "kernels, strides and paddings must be equally many, at least one each, "
                f"got {len(kernels)}, {len(strides)} and {len(paddings)}"
            )
        self.dim, self.norm, self.log_compression = dim, norm, log_compression
        self.geometries = [Geometry.conv(*sizes) for sizes in zip(kernels, strides, paddings, strict=True)]
        widths = [1] + [dim] * (len(kernels) - 1)
        self.convs = nn.ModuleList(
            nn.Conv1d(width, dim, kernel, stride, bias=bias)
            for width, kernel, stride in zip(widths, kernels, strides, strict=True)
        )
        norms = [conv_norm(norm, dim) for _ in kernels]
        self.norms = nn.ModuleList(n for n in norms if n is not None)
        self.activation = build_activation(activation)
        if norm == "none":  # nothing evens the levels out, so the weights must keep them
            for conv in self.convs:
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # type: ignore[arg-type]

    @property
    def geometry(self) -> Geometry:
        """Stride and receptive field of the whole, in samples."""
        whole = Geometry()
        for layer in self.geometries:
            whole = whole.then(layer)
        return whole

    def output_lengths(self, lengths: Count) -> Count:
        """Frames for samples; exact."""
        for layer in self.geometries:
            lengths = layer.output_lengths(lengths)
        return lengths

    def forward(
        self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch frame dim"], Int[Tensor, " batch"]]:
        """Frames and how many of them each item has; zeros behind them."""
        shortest = self.geometry.receptive_field
        if waveform.shape[1] < shortest:  # zeros are cut off again by the lengths
            waveform = nn.functional.pad(waveform, (0, shortest - waveform.shape[1]))
        values = zero_padding(waveform, lengths)[:, None]  # (batch, channel, time)
        for index, geometry in enumerate(self.geometries):
            if geometry.left:
                values = values * valid_mask(lengths, values.shape[2])[:, None]
                values = nn.functional.pad(values, (geometry.left, geometry.right))
            lengths = geometry.output_lengths(lengths)
            values = self.layer(index, values, lengths)
        return zero_padding(self.compressed(values).transpose(1, 2), lengths), lengths

    def layer(
        self, index: int, values: Float[Tensor, "batch channel time"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch dim frame"]:
        """One layer on what is already padded; `lengths` are those of its output."""
        outputs = self.convs[index](values)
        norm = self.norms[index] if len(self.norms) else None
        if isinstance(norm, GroupNorm):
            outputs = norm.channels_first(outputs, lengths)
        elif norm is not None:
            outputs = norm(outputs.transpose(1, 2), lengths).transpose(1, 2)
        return self.activation(outputs)  # type: ignore[no-any-return]

    def compressed(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """log(1 + |x|), where that is asked for."""
        return values.abs().log1p() if self.log_compression else values

    def stream(self, batch: int = 1) -> "StridedStream":
        """The same in chunks.

        Raises:
            ConfigError: the norm looks at whole items.
        """
        return StridedStream(self, batch)


class StridedStream:
    """`StridedConvs` in chunks: each layer keeps the steps that its next window still needs."""

    def __init__(self, convs: StridedConvs, batch: int = 1) -> None:
        if convs.norm == "group":
            raise ConfigError("norm='group' looks at a whole item and cannot stream; train with norm='layer'")
        self.convs, self.batch = convs, batch
        self._reset()

    def _reset(self) -> None:
        weights: list[Any] = [conv.weight for conv in self.convs.convs]
        self.waiting = [
            weight.new_zeros(self.batch, weight.shape[1], geometry.left)
            for weight, geometry in zip(weights, self.convs.geometries, strict=True)
        ]

    def push(self, waveform: Float[Tensor, "batch time"]) -> Float[Tensor, "batch frame dim"]:
        """Takes samples; gives the frames that became complete."""
        return self._advance(waveform, last=False)

    def finish(self) -> Float[Tensor, "batch frame dim"]:
        """The frames that the zeros behind the signal complete; ready for another signal afterwards."""
        frames = self._advance(self.waiting[0].new_zeros(self.batch, 0), last=True)
        self._reset()
        return frames

    @torch.no_grad()
    def _advance(self, waveform: Tensor, last: bool) -> Tensor:
        values = waveform[:, None]
        for index, geometry in enumerate(self.convs.geometries):
            values = torch.cat([self.waiting[index], values], dim=2)
            if last:
                values = nn.functional.pad(values, (0, geometry.right))
            count = max(0, (values.shape[2] - geometry.receptive_field) // geometry.stride + 1)
            self.waiting[index] = values[..., count * geometry.stride :].clone()  # a view would keep the whole chunk
            if count == 0:  # nothing for the layers above, which may still have something to flush
                values = values.new_zeros(self.batch, self.convs.dim, 0)
                continue
            window = values[..., : (count - 1) * geometry.stride + geometry.receptive_field]
            values = self.convs.layer(index, window, torch.full((self.batch,), count, device=values.device))
        return self.convs.compressed(values).transpose(1, 2)
