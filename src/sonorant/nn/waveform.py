"""Convolutions over the waveform: the front end of wav2vec 2.0 and all who followed it.

No layer pads, so a frame of an item's true length sees nothing but the item. On a CPU an item goes through in blocks of
frames that stay in cache, from the waveform to the last layer, and the batch's padding is never touched. The one norm
that looks at a whole item, the group norm after the first convolution, needs no pass over that layer's output: its mean
and variance follow from the 10 × 10 covariance of the windows of the waveform (`window_statistics`), and the norm melts
into the convolution's weights.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sonorant.core.config import one_of
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import Geometry
from sonorant.nn.linear import onednn_usable, product

__all__ = [
    "WAV2VEC2_LAYERS",
    "NormedConv",
    "WaveformConvs",
    "normalised",
    "strided_conv",
    "tap_matrix",
    "window_statistics",
]

ConvLayer = tuple[int, int, int]
"""(channels, kernel, stride)."""

WAV2VEC2_LAYERS: tuple[ConvLayer, ...] = ((512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2)
"""Of wav2vec 2.0 (arXiv:2006.11477, section 4.2): 25 ms windows every 20 ms at 16 kHz."""

BLOCK = 64
"""Frames that go through all layers together where nothing is kept for a gradient."""


def normalised(
    waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"], eps: float = 1e-7
) -> Float[Tensor, "batch time"]:
    """Each item at zero mean and unit variance over its own samples, zero in the padding.

    Args:
        waveform: a padded batch.
        lengths: samples of each item.
        eps: added to the variance; transformers' is the default, fairseq's 1e-5.
    """
    valid = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]
    count = lengths.clamp(min=1)[:, None]
    values = waveform.float().masked_fill(~valid, 0)
    centred = (values - values.sum(1, keepdim=True) / count).masked_fill(~valid, 0)
    var = centred.square().sum(1, keepdim=True) / count
    return (centred * torch.rsqrt(var + eps)).to(waveform.dtype)


class NormedConv(nn.Module):
    """One convolution (no padding) and its norm: "group" (each channel over its item), "layer" (over channels) or "none"."""

    def __init__(self, inputs: int, channels: int, kernel: int, stride: int, bias: bool, norm: str) -> None:
        super().__init__()
        self.stride, self.kernel, self.norm = stride, kernel, norm
        self.weight = nn.Parameter(torch.empty(channels, inputs, kernel))
        nn.init.kaiming_normal_(self.weight)
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        if norm != "none":
            self.scale = nn.Parameter(torch.ones(channels))
            self.shift = nn.Parameter(torch.zeros(channels))

    @property
    def geometry(self) -> Geometry:
        return Geometry.conv(self.kernel, self.stride)


def strided_conv(
    frames: Float[Tensor, "frame channel"],
    kernel: Float[Tensor, "out inputs"],
    stride: int,
    bias: Float[Tensor, " out"] | None = None,
    activation: Literal["gelu", "none"] = "none",
) -> Float[Tensor, "frames out"]:
    """A convolution without padding over frames in rows, as products of matrices without a copy of the input.

    A window of neighbouring rows is one long row of a view. Where oneDNN does the product and nothing is kept for a gradient,
    bias and activation come in the same go; elsewhere the rows of a view may not overlap, and a kernel of up to twice the
    stride is two products: one with long rows of `stride` frames, one with the part of the next ones that it still covers.

    Args:
        frames: what goes in.
        kernel: of `tap_matrix`, made once for many calls.
        stride: frames from one output to the next.
        bias: of each output.
        activation: what follows.
    """
    if not torch.is_grad_enabled() and onednn_usable(frames, kernel):
        return product(_windows(frames.contiguous(), kernel.shape[1], stride), kernel, bias, activation)
    out: Tensor = _StridedConv.apply(frames, kernel, stride)  # type: ignore[no-untyped-call]
    out = out if bias is None else out + bias
    if activation == "none":
        return out
    return nn.functional.gelu(out) if out.requires_grad else torch.ops.aten.gelu_(out)


def tap_matrix(weight: Float[Tensor, "out channel kernel"]) -> Float[Tensor, "out inputs"]:
    """A kernel as a matrix whose columns are (tap, channel)."""
    return weight.permute(0, 2, 1).flatten(1)


def _windows(frames: Tensor, size: int, stride: int) -> Tensor:
    """`(output, size)`: what each output sees, as a view whose rows overlap."""
    channels = frames.shape[1]
    num_out = (len(frames) - size // channels) // stride + 1
    return frames.as_strided((num_out, size), (stride * channels, 1), frames.storage_offset())


def _parts(frames: Tensor, size: int, stride: int) -> list[tuple[Tensor, slice]]:
    """The windows as views whose rows do not overlap, each with the columns of the kernel that it meets."""
    whole, step = _windows(frames, size, stride), stride * frames.shape[1]
    columns = [slice(begin, min(begin + step, size)) for begin in range(0, size, step)]
    return [(whole[:, part], part) for part in columns]


class _StridedConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, frames: Tensor, kernel: Tensor, stride: int) -> Tensor:
        frames = frames.contiguous()
        ctx.save_for_backward(frames, kernel)
        ctx.stride = stride
        if onednn_usable(frames, kernel):
            return product(_windows(frames, kernel.shape[1], stride), kernel)
        (first, columns), *rest = _parts(frames, kernel.shape[1], stride)
        out = first @ kernel[:, columns].t()
        for view, columns in rest:
            out.addmm_(view, kernel[:, columns].t())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        frames, kernel = ctx.saved_tensors
        gradient, size = gradients[0].contiguous(), kernel.shape[1]
        for_frames = for_kernel = None
        if ctx.needs_input_grad[0]:
            for_frames = torch.zeros_like(frames)
            for view, columns in _parts(for_frames, size, ctx.stride):
                view.addmm_(gradient, kernel[:, columns])
        if ctx.needs_input_grad[1]:
            for_kernel = torch.cat([gradient.t() @ view for view, _ in _parts(frames, size, ctx.stride)], dim=1)
        return for_frames, for_kernel, None


def window_statistics(
    waveform: Float[Tensor, " time"], weight: Float[Tensor, "out 1 kernel"], stride: int
) -> tuple[Float[Tensor, " out"], Float[Tensor, " out"]]:
    """Mean and variance over time of each channel of a convolution over a waveform, without making its output.

    With the windows' mean m and covariance C a channel of kernel w has mean w·m and variance w·C·w; summed in float64,
    as the variance is a difference of what may be large numbers.
    """
    windows = waveform.double().unfold(0, weight.shape[2], stride)
    mean = windows.mean(0)
    covariance = windows.t() @ windows / len(windows) - torch.outer(mean, mean)
    kernels = weight[:, 0].double()
    return kernels @ mean, ((kernels @ covariance) * kernels).sum(1).clamp(min=0)


class WaveformConvs(nn.Module):
    """A stack of convolutions with GELU: waveform → frames.

    Args:
        layers: (channels, kernel, stride) of each.
        norm: "group": a group norm, one group a channel, after the first convolution; "layer": a layer norm after each;
            "none".
        bias: whether convolutions have one.
        over_padding: take the group norm's statistics over the padded batch, as models of that kind have been run
            elsewhere: an item then depends on how far its batch is padded.
        eps: of the norms.
    """

    def __init__(
        self,
        layers: Sequence[ConvLayer] = WAV2VEC2_LAYERS,
        norm: str = "group",
        bias: bool = False,
        over_padding: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        one_of("conv_norm", norm, ("group", "layer", "none"))
        if not layers:
            raise ConfigError("conv_layers must hold at least one (channels, kernel, stride)")
        self.norm, self.over_padding, self.eps = norm, over_padding, eps
        inputs, convs = 1, []
        for index, (channels, kernel, stride) in enumerate(layers):
            own = norm if norm != "group" or index == 0 else "none"
            convs.append(NormedConv(inputs, channels, kernel, stride, bias, own))
            inputs = channels
        self.convs: Any = nn.ModuleList(convs)
        self.dim = inputs
        self.geometry = Geometry.chain([(kernel, stride) for _, kernel, stride in layers])

    def output_lengths(self, lengths: Any) -> Any:
        """Frames for samples; exact, layer by layer."""
        for conv in self.convs:
            lengths = conv.geometry.output_lengths(lengths)
        return lengths

    def forward(
        self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch frame dim"], Int[Tensor, " batch"]]:
        """Frames, zero in the padding, and their number for each item."""
        frames = self.output_lengths(lengths)
        if waveform.device.type != "cpu" or torch.compiler.is_compiling() or not len(lengths):
            return self._padded(waveform, lengths, frames), frames
        return self._by_item(waveform, lengths, frames), frames

    # --- item by item ---------------------------------------------------------------------------------------------

    def _by_item(self, waveform: Tensor, lengths: Tensor, frames: Tensor) -> Tensor:
        longest = max(1, int(self.output_lengths(waveform.shape[1])))
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else waveform.dtype
        with torch.autocast("cpu", enabled=False):
            # Short floats under autocast are made once here, not at every product.
            kernels = [tap_matrix(conv.weight.to(dtype)) for conv in self.convs[1:]]
            items = []
            for row, size, count in zip(waveform, lengths.tolist(), frames.tolist(), strict=True):
                items.append(
                    self._item(row, size, count, kernels, dtype) if count else row.new_zeros(0, self.dim, dtype=dtype)
                )
        out = nn.utils.rnn.pad_sequence(items, batch_first=True)
        return nn.functional.pad(out, (0, 0, 0, longest - out.shape[1]))

    def _item(self, row: Tensor, size: int, count: int, kernels: list[Tensor], dtype: torch.dtype) -> Tensor:
        first = self._first(_quiet(row, size) if self.over_padding else row[:size])
        first = (first[0].to(dtype), None if first[1] is None else first[1].to(dtype))
        used = row[: self.geometry.input_length(count)].to(dtype)
        if torch.is_grad_enabled():
            return self._through(used, first, kernels)
        blocks = []
        for start in range(0, count, BLOCK):
            begin, stop = start * self.geometry.stride, min(start + BLOCK, count)
            part = used[begin : begin + self.geometry.input_length(stop - start)]
            blocks.append(self._through(part, first, kernels))
        return torch.cat(blocks) if len(blocks) > 1 else blocks[0]

    def _first(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the first convolution, with the group norm in them where there is one."""
        conv = self.convs[0]
        if conv.norm != "group":
            return conv.weight, conv.bias
        mean, var = window_statistics(waveform, conv.weight, conv.stride)
        return _melted(conv, mean, var, self.eps)

    def _through(self, waveform: Tensor, first: tuple[Tensor, Tensor | None], kernels: list[Tensor]) -> Tensor:
        # A handful of taps over one channel: the windows are copied, and the bias rides along.
        windows = waveform.unfold(0, first[0].shape[2], self.convs[0].stride)
        values = nn.functional.linear(windows, first[0][:, 0], first[1])
        values = self._normed(self.convs[0], values)
        for conv, kernel in zip(self.convs[1:], kernels, strict=True):
            bias = None if conv.bias is None else conv.bias.to(values.dtype)
            if conv.norm == "layer":
                values = self._normed(conv, strided_conv(values, kernel, conv.stride, bias))
            else:
                values = strided_conv(values, kernel, conv.stride, bias, "gelu")
        return values

    def _normed(self, conv: Any, values: Tensor) -> Tensor:
        if conv.norm == "layer":
            scale, shift = conv.scale.to(values.dtype), conv.shift.to(values.dtype)
            values = nn.functional.layer_norm(values, values.shape[-1:], scale, shift, self.eps)
        if torch.is_grad_enabled() and values.requires_grad:
            return nn.functional.gelu(values)
        return torch.ops.aten.gelu_(values)  # type: ignore[no-any-return]

    # --- the padded batch, for export, compilation and accelerators ------------------------------------------------

    def _padded(self, waveform: Tensor, lengths: Tensor, frames: Tensor) -> Tensor:
        field, time = self.geometry.receptive_field, torch.arange(waveform.shape[1], device=waveform.device)
        values = waveform.masked_fill(time >= lengths[:, None], 0)
        # Too short for one window: zeros are cut off again by the lengths.
        values = nn.functional.pad(values, (0, torch.sym_max(0, field - waveform.shape[1])))[:, None]
        for conv in self.convs:
            if conv.norm == "group":
                values = self._group_normed(conv, values, lengths)
            else:
                values = nn.functional.conv1d(values, conv.weight, conv.bias, conv.stride)
            if conv.norm == "layer":
                rows = nn.functional.layer_norm(
                    values.transpose(1, 2), values.shape[1:2], conv.scale, conv.shift, self.eps
                )
                values = rows.transpose(1, 2)
            values = nn.functional.gelu(values)
        steps = torch.arange(values.shape[2], device=waveform.device)
        return values.transpose(1, 2).masked_fill((steps >= frames[:, None])[..., None], 0)

    def _group_normed(self, conv: Any, values: Tensor, lengths: Tensor) -> Tensor:
        out = nn.functional.conv1d(values, conv.weight, conv.bias, conv.stride)
        steps = torch.arange(out.shape[2], device=out.device)
        sizes = conv.geometry.output_lengths(lengths).clamp(min=1)
        seen = torch.ones_like(steps, dtype=torch.bool)[None] if self.over_padding else steps < sizes[:, None]
        seen = seen.expand(out.shape[0], -1)[:, None]
        count = seen.sum(-1, keepdim=True)
        mean = torch.where(seen, out, 0).float().sum(-1, keepdim=True) / count
        var = torch.where(seen, out - mean, 0).float().square().sum(-1, keepdim=True) / count
        normed = (out - mean) * torch.rsqrt(var + self.eps)
        return (normed * conv.scale[:, None] + conv.shift[:, None]).to(out.dtype)


def _quiet(row: Tensor, size: int) -> Tensor:
    return torch.where(torch.arange(len(row)) < size, row, 0)


def _melted(conv: Any, mean: Tensor, var: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The convolution whose output is the group norm of `conv`'s; its own bias falls out with the mean."""
    factor = conv.scale.double() * torch.rsqrt(var + eps)
    dtype = conv.weight.dtype
    return (conv.weight * factor[:, None, None].to(dtype)), (conv.shift.double() - mean * factor).to(dtype)
