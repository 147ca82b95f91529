"""From all layers of an encoder to one stream of features: taps (arXiv:2406.12209).

A tap is called `tap(layers)` with what `encoder(values, lengths, layers=True)` gives, and returns `Features` of width
`tap.dim`. Layers at other frame rates than the last (MR-HuBERT, Zipformer) are brought to its frames first: each frame takes
what the layer holds at its time. The catalogue `TAPS` stands at the end.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sonorant.core.errors import ConfigError, unknown_name
from sonorant.core.lengths import Geometry, zero_padding
from sonorant.core.types import Features
from sonorant.nn.linear import Linear

__all__ = [
    "TAPS", "Concatenation", "GroupedSum", "HierarchicalConv", "LayerAttention", "LayerChoice", "LengthAdaptor",
    "WeightedSum", "aligned", "build_tap",
]  # fmt: skip


def aligned(layers: Sequence[Features]) -> list[Features]:
    """All layers at the frames of the last one; a frame takes what stands at its own time.

    >>> slow, fast = (Features(torch.ones(1, n, 1), torch.tensor([n]), rate) for n, rate in ((2, 25.0), (3, 50.0)))
    >>> [layer.values.shape[1] for layer in aligned([slow, fast])]
    [3, 3]
    """
    last = layers[-1]
    return [layer if layer.frame_rate == last.frame_rate else _at_frames_of(last, layer) for layer in layers]


def _at_frames_of(target: Features, layer: Features) -> Features:
    num_frames = target.values.shape[1]
    steps = torch.arange(num_frames, device=layer.values.device, dtype=torch.float64)
    # A tiny surplus, so that a ratio which is a whole number but for rounding does not fall short of it.
    where = (steps * (layer.frame_rate / target.frame_rate) + 1e-6).floor().long()
    if layer.values.shape[1] == 0:
        values = layer.values.new_zeros(len(layer), num_frames, layer.values.shape[2])
    else:
        # An item's last frames may lie behind the slow layer's last one, never in its padding.
        where = torch.minimum(where[None], (layer.lengths[:, None] - 1).clamp(min=0))
        values = zero_padding(layer.values, layer.lengths).gather(
            1, where[..., None].expand(-1, -1, layer.values.shape[2])
        )
    return Features(zero_padding(values, target.lengths), target.lengths, target.frame_rate)


def _check_count(layers: Sequence[Features], num_inputs: int) -> None:
    if len(layers) != num_inputs:
        raise ConfigError(
            f"this tap takes {num_inputs} layers (what enters the first block, and what comes out of each), got {len(layers)}"
        )


def _checked(layers: Sequence[Features], num_inputs: int, dim: int) -> list[Tensor]:
    """The values of all layers at the same frames, as many and as wide as the tap was built for."""
    _check_count(layers, num_inputs)
    widths = {layer.values.shape[-1] for layer in layers}
    if widths != {dim}:
        raise ConfigError(f"this tap takes layers of width {dim}, got {sorted(widths)}; use 'layer' to choose one")
    return [zero_padding(layer.values, layer.lengths) for layer in aligned(layers)]


def _like(layers: Sequence[Features], values: Tensor) -> Features:
    last = layers[-1]
    return Features(zero_padding(values, last.lengths), last.lengths, last.frame_rate)


class LayerChoice(nn.Module):
    """One layer as it is.

    Args:
        num_inputs: layers that come in, one more than the encoder has blocks.
        dim: their width.
        layer: 0 is what enters the first block, i what comes out of the i-th, -1 the last.
    """

    def __init__(self, num_inputs: int, dim: int, layer: int = -1) -> None:
        super().__init__()
        if not -num_inputs <= layer < num_inputs:
            raise ConfigError(f"layer must lie in [{-num_inputs}, {num_inputs - 1}], got {layer}")
        self.num_inputs, self.layer, self.dim = num_inputs, layer, dim

    def forward(self, layers: Sequence[Features]) -> Features:
        _check_count(layers, self.num_inputs)
        return layers[self.layer]


class WeightedSum(nn.Module):
    """One learnt weight a layer, softmaxed (SUPERB, arXiv:2105.01051, section 3.2).

    Args:
        num_inputs: layers that come in.
        dim: their width.
        normalise: bring each layer's frames to mean 0 and deviation 1 first, so that loud layers do not drown the others.
    """

    def __init__(self, num_inputs: int, dim: int, normalise: bool = False) -> None:
        super().__init__()
        self.num_inputs, self.dim, self.normalise = num_inputs, dim, normalise
        self.weight = nn.Parameter(torch.zeros(num_inputs))

    def forward(self, layers: Sequence[Features]) -> Features:
        return _like(layers, self.combine(_checked(layers, self.num_inputs, self.dim)))

    def combine(self, values: Sequence[Float[Tensor, "batch frame dim"]]) -> Float[Tensor, "batch frame dim"]:
        """The sum of tensors at the same frames."""
        weights = self.weight.softmax(0).to(values[0].dtype)
        if self.normalise:
            values = [nn.functional.layer_norm(layer, (self.dim,)) for layer in values]
        total = weights[0] * values[0]
        for weight, layer in zip(weights[1:], values[1:], strict=True):
            total = torch.addcmul(total, weight, layer)  # layer by layer: a stack of all would be a copy of all
        return total


class GroupedSum(nn.Module):
    """Weighted sums over groups of neighbouring layers, side by side, projected (arXiv:2406.12209, section 2).

    Args:
        num_inputs: layers that come in.
        dim: their width, and of what comes out.
        num_groups: as even as the number of layers allows.
        normalise: as in `WeightedSum`.
    """

    def __init__(self, num_inputs: int, dim: int, num_groups: int = 3, normalise: bool = False) -> None:
        super().__init__()
        if not 1 <= num_groups <= num_inputs:
            raise ConfigError(f"num_groups must lie in [1, {num_inputs}], the number of layers, got {num_groups}")
        self.num_inputs, self.dim = num_inputs, dim
        self.bounds = [num_inputs * group // num_groups for group in range(num_groups + 1)]
        sizes = [stop - start for start, stop in zip(self.bounds, self.bounds[1:])]
        self.sums = nn.ModuleList(WeightedSum(size, dim, normalise) for size in sizes)
        self.project = Linear(num_groups * dim, dim)

    def forward(self, layers: Sequence[Features]) -> Features:
        values = _checked(layers, self.num_inputs, self.dim)
        spans = zip(self.bounds, self.bounds[1:])
        groups: list[Any] = list(self.sums)
        parts = [group.combine(values[start:stop]) for group, (start, stop) in zip(groups, spans, strict=True)]
        return _like(layers, self.project(torch.cat(parts, dim=-1)))


class Concatenation(nn.Module):
    """All layers side by side, projected."""

    def __init__(self, num_inputs: int, dim: int) -> None:
        super().__init__()
        self.num_inputs, self.dim = num_inputs, dim
        self.project = Linear(num_inputs * dim, dim)

    def forward(self, layers: Sequence[Features]) -> Features:
        values = _checked(layers, self.num_inputs, self.dim)
        parts = self.project.weight.split(self.dim, dim=1)
        total = nn.functional.linear(values[0], parts[0], self.project.bias)
        for layer, part in zip(values[1:], parts[1:], strict=True):
            total = total + nn.functional.linear(layer, part)
        return _like(layers, total)


class LayerAttention(nn.Module):
    """In each frame a learnt query looks at the layers: weights that change from frame to frame.

    Args:
        num_inputs: layers that come in.
        dim: their width.
        num_heads: each weighs the layers on its own; must divide `dim`.
    """

    def __init__(self, num_inputs: int, dim: int, num_heads: int = 4) -> None:
        super().__init__()
        if dim % num_heads:
            raise ConfigError(f"num_heads must divide dim, got num_heads={num_heads} and dim={dim}")
        self.num_inputs, self.dim, self.num_heads = num_inputs, dim, num_heads
        self.query = nn.Parameter(torch.randn(num_heads, dim) * dim**-0.5)
        self.layer_bias = nn.Parameter(torch.zeros(num_heads, num_inputs))
        self.value = Linear(dim, dim)
        self.output = Linear(dim, dim)

    def forward(self, layers: Sequence[Features]) -> Features:
        values = _checked(layers, self.num_inputs, self.dim)
        # The key projection of one fixed query is a vector a head, so no layer is projected to be looked at.
        normed = [nn.functional.layer_norm(layer, (self.dim,)) for layer in values]
        scores = torch.stack([layer @ self.query.t() for layer in normed], dim=-1) + self.layer_bias
        weights = scores.softmax(-1)  # (batch, frame, head, layer)
        heads = torch.zeros_like(self.value(normed[0])).unflatten(-1, (self.num_heads, -1))
        for index, layer in enumerate(normed):
            heads = heads + weights[..., index, None] * self.value(layer).unflatten(-1, (self.num_heads, -1))
        return _like(layers, self.output(heads.flatten(-2)))


class HierarchicalConv(nn.Module):
    """Convolutions over the axis of layers, the same in every frame, until few are left: ⌊log₃ L⌋ of kernel 5 and stride 3
    with ReLU; what is left is laid side by side (arXiv:2406.12209, section 2).

    Args:
        num_inputs: layers that come in, at least 3.
        dim: their width; what comes out is as wide, but for the remainder of its division by the layers left.
    """

    def __init__(self, num_inputs: int, dim: int) -> None:
        super().__init__()
        if num_inputs < 3:
            raise ConfigError(f"a hierarchy over layers needs at least 3 of them, got {num_inputs}")
        self.num_inputs, self.input_dim = num_inputs, dim
        geometry = Geometry.conv(5, 3, 2)
        left, convs = num_inputs, 0
        while 3 ** (convs + 1) <= num_inputs:
            left, convs = geometry.output_lengths(left), convs + 1
        last = dim // left
        self.convs = nn.ModuleList(
            nn.Conv1d(dim, last if index == convs - 1 else dim, 5, stride=3, padding=2) for index in range(convs)
        )
        self.dim = last * left

    def forward(self, layers: Sequence[Features]) -> Features:
        values = _checked(layers, self.num_inputs, self.input_dim)
        for conv in self.convs:
            values = [torch.relu(layer) for layer in _over_layers(conv, values)]
        # Channel by channel, the layers left of each: as the published code flattens.
        return _like(layers, torch.stack(values, dim=-1).flatten(-2))


def _over_layers(conv: Any, values: list[Tensor]) -> list[Tensor]:
    """The convolution as sums of products, without a copy of all layers, and without those of padding."""
    taps = conv.weight.unbind(-1)
    outputs = []
    for place in range((len(values) - 1) // 3 + 1):
        total = conv.bias
        for tap, weight in enumerate(taps):
            if 0 <= (source := 3 * place + tap - 2) < len(values):
                total = total + nn.functional.linear(values[source], weight)
        outputs.append(total)
    return outputs


class LengthAdaptor(nn.Module):
    """Strided convolutions with gates, that thin frames out before a decoder of text (arXiv:2010.12829, section 3.2).

    Args:
        dim: width, in and out.
        num_layers: convolutions.
        kernel_size: odd, frames that each sees.
        stride: frames that become one, in each.
    """

    def __init__(self, dim: int, num_layers: int = 3, kernel_size: int = 3, stride: int = 2) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size must be odd, so that frames keep their times, got {kernel_size}")
        self.dim, self.stride = dim, stride**num_layers
        self.geometry = Geometry.conv(kernel_size, stride, kernel_size // 2)
        self.convs = nn.ModuleList(
            nn.Conv1d(dim, 2 * dim, kernel_size, stride, kernel_size // 2) for _ in range(num_layers)
        )

    def forward(self, features: Features) -> Features:
        values, lengths = features.values, features.lengths
        if values.shape[1] == 0:
            values = nn.functional.pad(values, (0, 0, 0, 1))  # a convolution wants a frame; the lengths cut it off
        for conv in self.convs:
            values = conv(zero_padding(values, lengths).transpose(1, 2)).transpose(1, 2)
            values = nn.functional.glu(values, dim=-1)
            lengths = self.geometry.output_lengths(lengths)
        return Features(zero_padding(values, lengths), lengths, features.frame_rate / self.stride)


# --- catalogues -------------------------------------------------------------------------------------------------------

TAPS: dict[str, Callable[..., nn.Module]] = {
    "layer": LayerChoice,
    "weighted_sum": WeightedSum,
    "grouped_sum": GroupedSum,
    "concatenation": Concatenation,
    "attention": LayerAttention,
    "hierarchical": HierarchicalConv,
}
"""Name → builder from (num_inputs, dim) and options."""


def build_tap(name: str, num_inputs: int, dim: int, **options: Any) -> nn.Module:
    """A tap by its name in `TAPS`, for `num_inputs` layers (an encoder with `layers=True` gives `num_layers + 1`).

    >>> tap = build_tap("weighted_sum", 2, 4, normalise=True)
    >>> tap([Features(torch.ones(1, 3, 4), torch.tensor([3]), 50.0)] * 2).values.shape
    torch.Size([1, 3, 4])

    Raises:
        ConfigError: unknown name, or options that do not fit.
    """
    if name not in TAPS:
        raise ConfigError(unknown_name("tap", name, TAPS))
    return TAPS[name](num_inputs, dim, **options)
