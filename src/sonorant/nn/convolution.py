"""Convolutions over frames: the depthwise one inside a Conformer, and the front ends that thin frames out.

Every front end is called `(values (batch, frame, dim), lengths) -> (values, lengths)`, knows its `dim`, `stride`,
`receptive_field` and exact `output_lengths`, and zeroes the padding before each convolution that pads, so that an item
comes out the same alone and in any batch. Those without padding (`padding=0`) can also run chunk by chunk.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.errors import ConfigError, unknown_name
from sonorant.core.lengths import Geometry, zero_padding
from sonorant.nn.linear import Linear

__all__ = [
    "SUBSAMPLINGS",
    "DepthwiseConv",
    "FrameStack",
    "Subsampling1d",
    "Subsampling2d",
    "build_subsampling",
    "depthwise_conv",
    "stack_frames",
]

Count = TypeVar("Count", int, Tensor)

_SHORT = (torch.bfloat16, torch.float16)


def _channels_last(padded: Tensor, weight: Tensor) -> Tensor:
    """Depthwise convolution of `(batch, frame, dim)` as a 2-D one in channels-last layout, which needs no transposed copy."""
    image = padded.transpose(1, 2).unsqueeze(2)  # (batch, dim, 1, frame), strides of (batch, 1, frame, dim)
    return nn.functional.conv2d(image, weight.unsqueeze(2), groups=weight.shape[0]).squeeze(2).transpose(1, 2)


def _weight_gradient(padded: Tensor, gradient: Tensor, kernel_size: int, block: int = 32) -> Tensor:
    """Correlation of input and output gradient in each channel, as products of matrices.

    For blocks of `block` frames the outer product of the gradient with the input it saw holds the wanted sums along its
    diagonals; that is (block + kernel) / kernel times the work, and still beats the direct loops by far.
    """
    batch, num_frames, dim = gradient.shape
    num_blocks = -(-num_frames // block)
    missing = num_blocks * block - num_frames
    width = block + kernel_size - 1
    blocks = nn.functional.pad(gradient, (0, 0, 0, missing)).reshape(batch * num_blocks, block, dim).permute(2, 1, 0)
    seen = nn.functional.pad(padded, (0, 0, 0, missing)).unfold(1, width, block)  # (batch, blocks, dim, width)
    outer = torch.bmm(blocks, seen.reshape(batch * num_blocks, dim, width).transpose(0, 1))  # (dim, block, width)
    # Row i holds lag k at column i + k: one column of padding makes each row's start step down the diagonal.
    skewed = nn.functional.pad(outer, (0, 1)).as_strided((dim, block, kernel_size), (block * (width + 1), width + 2, 1))
    return skewed.sum(1).unsqueeze(1)


class _DepthwiseOnCpu(torch.autograd.Function):
    """torch's own backward takes ten times longer than its forward here."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(padded, weight)
        return _channels_last(padded, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        padded, weight = ctx.saved_tensors
        gradient, kernel_size = gradients[0], weight.shape[-1]
        around = nn.functional.pad(gradient, (0, 0, kernel_size - 1, kernel_size - 1))
        for_padded = _channels_last(around, weight.flip(-1)) if ctx.needs_input_grad[0] else None
        for_weight = _weight_gradient(padded, gradient, kernel_size) if ctx.needs_input_grad[1] else None
        return for_padded, for_weight


def depthwise_conv(
    values: Float[Tensor, "batch frame dim"],
    weight: Float[Tensor, "dim 1 kernel"],
    left: int,
    right: int,
) -> Float[Tensor, "batch out dim"]:
    """Each channel convolved with its own kernel, `left` and `right` zeros around the frames.

    Frames stay on axis 1 and channels on axis 2, where the layers around it want them. On a CPU the backward is our own
    (forward and backward of 16 × 160 × 144, kernel 31: 4 ms against 20–28 ms of `conv1d` with its two transposes).
    """
    padded = nn.functional.pad(values, (0, 0, left, right))
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return nn.functional.conv1d(padded.transpose(1, 2), weight, groups=weight.shape[0]).transpose(1, 2)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else padded.dtype
    if dtype not in _SHORT:
        return _on_cpu(padded, weight)
    # torch 2.13's kernel for this layout never returns in bfloat16 with two threads (seen on AMD with avx512_bf16), so
    # it is kept in float32; autocast would turn it back.
    with torch.autocast("cpu", enabled=False):
        return _on_cpu(padded.float(), weight.float()).to(dtype)


def _on_cpu(padded: Tensor, weight: Tensor) -> Tensor:
    if torch.is_grad_enabled() and (padded.requires_grad or weight.requires_grad):
        return _DepthwiseOnCpu.apply(padded, weight)
    return _channels_last(padded, weight)


class DepthwiseConv(nn.Module):
    """Depthwise convolution of masked frames with as many frames out as in.

    Args:
        dim: channels.
        kernel_size: odd, frames that one output sees.
        causal: look back only, never ahead.
        bias: add a learnt number to each channel.
    """

    def __init__(self, dim: int, kernel_size: int, causal: bool = False, bias: bool = True) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size must be odd, so that frames keep their places, got {kernel_size}")
        self.left = kernel_size - 1 if causal else kernel_size // 2
        self.right = 0 if causal else kernel_size // 2
        self.weight = nn.Parameter(torch.empty(dim, 1, kernel_size))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch frame dim"]:
        return self._shifted(depthwise_conv(zero_padding(values, lengths), self.weight, self.left, self.right))

    def step(
        self, values: Float[Tensor, "batch frame dim"], past: Float[Tensor, "batch past dim"]
    ) -> tuple[Tensor, Tensor]:
        """The causal convolution over one chunk after `past` (`left` frames); returns the output and the new past."""
        joined = torch.cat([past, values], dim=1)
        return self._shifted(depthwise_conv(joined, self.weight, 0, 0)), joined[:, joined.shape[1] - self.left :]

    def _shifted(self, values: Tensor) -> Tensor:
        return values if self.bias is None else values + self.bias


def _through(layers: Sequence[Geometry], lengths: Count) -> Count:
    for layer in layers:
        lengths = layer.output_lengths(lengths)
    return lengths


class Subsampling2d(nn.Module):
    """Convolutions of stride 2 over frames and frequencies, then a projection to `dim`.

    Two plain layers with as many channels as `dim` are the Conformer's front end (arXiv:2005.08100, section 2.1, ×4);
    three with `depthwise=True`, 256 channels and `padding=1` are Fast Conformer's (arXiv:2305.05084, section 2.1, ×8).

    Args:
        input_dim: frequencies (mel bands).
        dim: width that comes out.
        channels: of the convolutions; `dim` where 0.
        factor: 2, 4 or 8 frames become one.
        depthwise: all layers but the first convolve channel by channel and then mix.
        padding: zeros around frames and frequencies at each layer: 0 or 1.
    """

    def __init__(
        self, input_dim: int, dim: int, *, channels: int = 0, factor: int = 4, depthwise: bool = False, padding: int = 0
    ) -> None:
        super().__init__()
        if factor not in (2, 4, 8):
            raise ConfigError(f"factor must be 2, 4 or 8, got {factor}")
        channels = channels or dim
        self.dim, self.stride = dim, factor
        self.geometries = [Geometry.conv(3, 2, padding)] * (factor.bit_length() - 1)
        bands = _through(self.geometries, input_dim)
        if bands < 1:
            raise ConfigError(
                f"input_dim={input_dim} is too small to be divided by factor={factor}; give more mel bands"
            )
        convs = [nn.Sequential(nn.Conv2d(1, channels, 3, 2, padding))]
        for _ in self.geometries[1:]:
            if depthwise:
                each = nn.Conv2d(channels, channels, 3, 2, padding, groups=channels)
                convs.append(nn.Sequential(each, nn.Conv2d(channels, channels, 1)))
            else:
                convs.append(nn.Sequential(nn.Conv2d(channels, channels, 3, 2, padding)))
        self.convs = nn.ModuleList(convs)
        self.project = Linear(channels * bands, dim)

    @property
    def receptive_field(self) -> int:
        return 2 ** (len(self.geometries) + 1) - 1

    @property
    def streamable(self) -> bool:
        return self.geometries[0].left == 0

    def output_lengths(self, lengths: Count) -> Count:
        return _through(self.geometries, lengths)

    def forward(
        self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch out dim"], Int[Tensor, " batch"]]:
        if values.shape[1] < self.receptive_field:  # too short for one window: zeros are cut off again by the lengths
            values = nn.functional.pad(values, (0, 0, 0, self.receptive_field - values.shape[1]))
        image = zero_padding(values, lengths).unsqueeze(1).to(memory_format=torch.channels_last)
        for conv, geometry in zip(self.convs, self.geometries, strict=True):
            image = nn.functional.relu_(conv(image))
            lengths = geometry.output_lengths(lengths)
            if geometry.left:
                image = zero_padding(image.transpose(1, 2), lengths).transpose(1, 2)
        flat = image.permute(0, 2, 3, 1).flatten(2)  # (batch, frame, band × channel): a view in channels-last layout
        return zero_padding(self.project(flat), lengths), lengths


class Subsampling1d(nn.Module):
    """Strided convolutions over frames with GELU between, as in Whisper (arXiv:2212.04356, section 2.2).

    Args:
        input_dim: width that comes in.
        dim: width that comes out, and between.
        layers: (kernel, stride) of each convolution.
        padding: whether each layer pads by half its kernel; without it fewer frames come out, and it can stream.
    """

    def __init__(
        self, input_dim: int, dim: int, layers: Sequence[tuple[int, int]] = ((3, 1), (3, 2)), padding: bool = True
    ) -> None:
        super().__init__()
        self.dim = dim
        self.geometries = [Geometry.conv(kernel, stride, kernel // 2 if padding else 0) for kernel, stride in layers]
        whole = Geometry.chain(layers)
        self.stride, self.receptive_field = whole.stride, whole.receptive_field
        widths = [input_dim] + [dim] * len(layers)
        self.convs = nn.ModuleList(
            nn.Conv1d(widths[i], dim, kernel, stride, kernel // 2 if padding else 0)
            for i, (kernel, stride) in enumerate(layers)
        )

    @property
    def streamable(self) -> bool:
        return all(geometry.left == 0 for geometry in self.geometries)

    def output_lengths(self, lengths: Count) -> Count:
        return _through(self.geometries, lengths)

    def forward(
        self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch out dim"], Int[Tensor, " batch"]]:
        if values.shape[1] < self.receptive_field:
            values = nn.functional.pad(values, (0, 0, 0, self.receptive_field - values.shape[1]))
        for conv, geometry in zip(self.convs, self.geometries, strict=True):
            values = nn.functional.gelu(conv(zero_padding(values, lengths).transpose(1, 2))).transpose(1, 2)
            lengths = geometry.output_lengths(lengths)
        return zero_padding(values, lengths), lengths


def stack_frames(
    values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"], factor: int
) -> tuple[Float[Tensor, "batch out stacked"], Int[Tensor, " batch"]]:
    """Each `factor` neighbouring frames side by side, zero in the padding, and how many an item has.

    An incomplete last stack is left out, so that what comes out does not depend on padding.

    >>> stack_frames(torch.randn(1, 7, 3), torch.tensor([5]), 2)[0].shape
    torch.Size([1, 3, 6])
    """
    num_out, counts = values.shape[1] // factor, lengths // factor
    if torch.compiler.is_compiling():  # the slice would tie the graph to lengths with or without a remainder
        whole = values.index_select(1, torch.arange(num_out * factor, device=values.device))
    else:
        whole = values[:, : num_out * factor]
    return zero_padding(whole.reshape(values.shape[0], num_out, factor * values.shape[2]), counts), counts


class FrameStack(nn.Module):
    """`stack_frames`, projected to `dim`: the cheapest way to thin frames out."""

    streamable = True

    def __init__(self, input_dim: int, dim: int, factor: int = 4) -> None:
        super().__init__()
        self.dim, self.stride, self.receptive_field = dim, factor, factor
        self.project = Linear(factor * input_dim, dim)

    def output_lengths(self, lengths: Count) -> Count:
        return lengths // self.stride

    def forward(
        self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch out dim"], Int[Tensor, " batch"]]:
        if values.shape[1] < self.stride:
            values = nn.functional.pad(values, (0, 0, 0, self.stride - values.shape[1]))
        stacked, lengths = stack_frames(values, lengths, self.stride)
        return zero_padding(self.project(stacked), lengths), lengths


def _halvings(factor: int) -> int:
    if factor < 1 or factor & (factor - 1):
        raise ConfigError(f"factor must be a power of two for this front end, got {factor}; 'stack' takes any")
    return factor.bit_length() - 1


def _conv1d(input_dim: int, dim: int, factor: int, channels: int) -> nn.Module:
    return Subsampling1d(input_dim, dim, [(3, 1)] + [(3, 2)] * _halvings(factor), padding=False)


def _conv2d(input_dim: int, dim: int, factor: int, channels: int) -> nn.Module:
    return Subsampling2d(input_dim, dim, channels=channels, factor=factor)


def _depthwise(input_dim: int, dim: int, factor: int, channels: int) -> nn.Module:
    channels = channels or min(dim, 256)
    return Subsampling2d(input_dim, dim, channels=channels, factor=factor, depthwise=True, padding=1)


def _depthwise_valid(input_dim: int, dim: int, factor: int, channels: int) -> nn.Module:
    return Subsampling2d(input_dim, dim, channels=channels or min(dim, 256), factor=factor, depthwise=True)


def _stack(input_dim: int, dim: int, factor: int, channels: int) -> nn.Module:
    return FrameStack(input_dim, dim, factor)


SUBSAMPLINGS: dict[str, Callable[[int, int, int, int], nn.Module]] = {
    "conv2d": _conv2d,
    "depthwise": _depthwise,
    "depthwise_valid": _depthwise_valid,
    "conv1d": _conv1d,
    "stack": _stack,
}
"""Name → builder from (input_dim, dim, factor, channels); "depthwise_valid" is "depthwise" without padding and can stream."""


def build_subsampling(name: str, input_dim: int, dim: int, factor: int, channels: int = 0) -> nn.Module:
    """A front end by its name in `SUBSAMPLINGS`; `channels` are those of 2-D convolutions, 0 for their default.

    >>> build_subsampling("conv2d", 80, 16, 4).output_lengths(100)
    24
    """
    if name not in SUBSAMPLINGS:
        raise ConfigError(unknown_name("subsampling", name, SUBSAMPLINGS))
    return SUBSAMPLINGS[name](input_dim, dim, factor, channels)
