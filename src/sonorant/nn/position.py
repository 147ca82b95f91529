"""Where a frame stands: sinusoids, rotations, relative distances, a convolution.

Tables (`sinusoids`, `rotary_table`, `relative_table`) are functions of the number of frames alone; an encoder computes one
at the top of its forward and hands it to every layer. In attention over a cache the queries are the *last* frames of the
keys, which is all that the functions need to know.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.core.lengths import zero_padding
from sonorant.nn.block_convolution import block_convolve
from sonorant.nn.linear import Linear
from sonorant.nn.packed import Layout

__all__ = [
    "ConvolutionalPosition", "RelativeBias", "ShawBias", "SinusoidalPosition", "StackedConvolutionalPosition",
    "relative_table", "rotary_table", "rotate", "sinusoids",
]  # fmt: skip


def sinusoids(positions: Tensor, dim: int, base: float = 10_000.0) -> Float[Tensor, "frame dim"]:
    """Sines in the first half of `dim`, cosines in the second (arXiv:1706.03762, section 3.5, halves instead of pairs)."""
    if dim % 2:
        raise ConfigError(f"sinusoids need an even dim, got {dim}")
    steps = torch.arange(dim // 2, device=positions.device, dtype=torch.float32)
    angles = positions.to(torch.float32)[:, None] * torch.exp(steps * (-2.0 / dim) * torch.log(torch.tensor(base)))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class SinusoidalPosition(nn.Module):
    """Adds sinusoids of the absolute position; `offset` is the position of the first frame."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, values: Float[Tensor, "batch frame dim"], offset: int = 0) -> Float[Tensor, "batch frame dim"]:
        positions = torch.arange(values.shape[1], device=values.device) + offset
        return values + sinusoids(positions, self.dim).to(values.dtype)

    def packed(self, values: Float[Tensor, "*frames dim"], layout: Layout) -> Float[Tensor, "*frames dim"]:
        """The same over a layout."""
        return layout.over_items(lambda own, _: self(own), values)


def rotary_table(num_frames: int, dim: int, device: torch.device | str = "cpu") -> Float[Tensor, "2 frame half"]:
    """Cosines and sines of the angles that rotary positions turn by (arXiv:2104.09864, equation 15)."""
    table = sinusoids(torch.arange(num_frames, device=device), dim)
    return torch.stack([table[:, dim // 2 :], table[:, : dim // 2]])


def rotate(values: Float[Tensor, "batch head frame dim"], table: Float[Tensor, "2 key half"]) -> Tensor:
    """Turns each pair (d, d + dim/2) by its frame's angle; the frames are the last ones of the table.

    Scores between rotated vectors depend on the distance alone (equation 16), so any common offset may be left out.
    """
    cos, sin = table[:, table.shape[1] - values.shape[2] :].to(values.dtype)
    first, second = values.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def relative_table(
    num_queries: int, num_keys: int, dim: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "distance dim"]:
    """Sinusoids of the distances query − key, from `num_keys` down to `1 − num_queries`."""
    return sinusoids(torch.arange(num_keys, -num_queries, -1, device=device), dim)


class RelativeBias(nn.Module):
    """What Transformer-XL adds to the scores for the distance (arXiv:1901.02860, section 3.3, terms b and d).

    Args:
        dim: width of the model, divided among the heads.
        num_heads: heads.

    The content bias `u` is added to the queries by the attention, so that term c comes with term a in one product.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.project = Linear(dim, dim, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(num_heads, 1, dim // num_heads))
        self.position_bias = nn.Parameter(torch.zeros(num_heads, 1, dim // num_heads))
        nn.init.xavier_uniform_(self.content_bias)
        nn.init.xavier_uniform_(self.position_bias)

    def forward(
        self,
        query: Float[Tensor, "batch head query headdim"],
        num_keys: int,
        table: Float[Tensor, "distance dim"],
        scale: float = 1.0,
    ) -> Float[Tensor, "batch head query key"]:
        """Scores of each pair by its distance; `query` is already multiplied by `scale`, and the bias is here."""
        num_queries = query.shape[2]
        keys = self.project(table.to(query.dtype)).unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0)
        scores = (query + self.position_bias * scale) @ keys  # (batch, head, query, distance)
        # Column c of row i is the distance num_keys − c, and key j is at distance num_keys − num_queries + i − j: row i
        # starts at column num_queries − i. Read as one long row, with rows one shorter, the diagonals become columns.
        flat = scores.flatten(-2)[..., num_queries:]
        return flat.unflatten(-1, (num_queries, num_queries + num_keys - 1))[..., :num_keys]


class ShawBias(nn.Module):
    """A learned vector for each clipped distance, scored against the query (arXiv:1803.02155, equation 5, keys only).

    Args:
        head_dim: width of one head.
        max_distance: distances beyond it share one vector on each side.
        ahead: the same for keys after the query, where it differs.
    """

    def __init__(self, head_dim: int, max_distance: int = 64, ahead: int | None = None) -> None:
        super().__init__()
        self.max_distance, self.ahead = max_distance, max_distance if ahead is None else ahead
        self.table = nn.Parameter(torch.randn(self.ahead + max_distance + 1, head_dim) * head_dim**-0.5)

    def forward(
        self, query: Float[Tensor, "batch head query headdim"], num_keys: int
    ) -> Float[Tensor, "batch head query key"]:
        scores = query @ self.table.t()  # (batch, head, query, distance)
        index = self.distances(query.shape[2], num_keys, query.device)
        return torch.gather(scores, -1, index.expand(*scores.shape[:2], -1, -1))

    def distances(self, num_queries: int, num_keys: int, device: torch.device) -> Int[Tensor, "query key"]:
        """Row of the table for each pair; the queries are the last of the keys."""
        keys = torch.arange(num_keys, device=device)
        queries = torch.arange(num_queries, device=device) + (num_keys - num_queries)
        distance = queries[:, None] - keys[None, :]
        return distance.clamp(-self.ahead, self.max_distance) + self.ahead


_WIDE, _MANY_FRAMES = 64, 256
"""Taps and frames from which on a convolution of positions is cheaper by blocks in the frequency domain."""


class ConvolutionalPosition(nn.Module):
    """Adds GELU of a wide grouped convolution with weight norm, as wav2vec 2.0 does (arXiv:2006.11477, section 2).

    Args:
        dim: channels.
        kernel_size: frames that the convolution sees (128 in the paper); an even kernel drops its last output.
        num_groups: groups of channels (16 in the paper).
    """

    def __init__(self, dim: int, kernel_size: int = 128, num_groups: int = 16) -> None:
        super().__init__()
        if dim % num_groups:
            raise ConfigError(f"num_groups must divide dim, got num_groups={num_groups} and dim={dim}")
        conv = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2, groups=num_groups)
        nn.init.normal_(conv.weight, std=(4.0 / (kernel_size * dim)) ** 0.5)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.conv = nn.utils.parametrizations.weight_norm(conv, dim=2)

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch frame dim"]:
        return values + nn.functional.gelu(self._positions(zero_padding(values, lengths)))

    def packed(self, values: Float[Tensor, "*frames dim"], layout: Layout) -> Float[Tensor, "*frames dim"]:
        """The same over a layout."""
        if layout.runs is not None and len(values) >= _MANY_FRAMES and self.conv.kernel_size[0] >= _WIDE:
            return values + nn.functional.gelu(self._by_blocks(values, layout))
        weight = self.conv.weight  # once: weight norm makes it anew at each look

        def items(own: Tensor, lengths: Tensor | None) -> Tensor:
            return self._positions(own if lengths is None else zero_padding(own, lengths), weight)

        return values + nn.functional.gelu(layout.over_items(items, values))

    def _by_blocks(self, values: Tensor, layout: Layout) -> Tensor:
        # Spectra of short floats would be too coarse, and complex ones do not exist.
        with torch.autocast(values.device.type, enabled=False):
            items = [run for run in layout.runs or () if run.num_frames]
            rows = [
                values[run.start : run.start + run.count * run.num_frames].unflatten(0, (run.count, run.num_frames))
                for run in items
            ]
            found = block_convolve([row.float() for row in rows], self.conv.weight.float())
            assert self.conv.bias is not None
            return (torch.cat([item.flatten(0, 1) for item in found]) + self.conv.bias.float()).to(values.dtype)

    def _positions(self, values: Tensor, weight: Tensor | None = None) -> Tensor:
        conv = self.conv
        weight = conv.weight if weight is None else weight
        out = nn.functional.conv1d(values.transpose(1, 2), weight, conv.bias, padding=conv.padding, groups=conv.groups)
        return out.transpose(1, 2)[:, : values.shape[1]]


class StackedConvolutionalPosition(nn.Module):
    """Adds what several narrower grouped convolutions make, each followed by a norm and GELU (arXiv:2202.03555).

    Args:
        dim: channels.
        kernel_size: frames that each convolution sees; odd.
        num_groups: groups of channels.
        depth: convolutions.
        over_padding: each convolution reads what the one before wrote into the padding, as such models have been run
            elsewhere: an item then depends on how far its batch is padded.
    """

    def __init__(
        self, dim: int, kernel_size: int = 19, num_groups: int = 16, depth: int = 5, over_padding: bool = False
    ) -> None:
        super().__init__()
        self.over_padding = over_padding
        if dim % num_groups or kernel_size % 2 == 0:
            raise ConfigError(
                f"num_groups must divide dim and kernel_size be odd, got num_groups={num_groups}, dim={dim} and "
                f"kernel_size={kernel_size}"
            )
        self.convs = nn.ModuleList(
            nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2, groups=num_groups) for _ in range(depth)
        )

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch frame dim"]:
        if self.over_padding:
            return values + self._positions(zero_padding(values, lengths), None)
        return values + self._positions(values, lengths)

    def packed(self, values: Float[Tensor, "*frames dim"], layout: Layout) -> Float[Tensor, "*frames dim"]:
        """The same over a layout."""
        if self.over_padding:
            return values + layout.pack(self._positions(layout.padded(values), None))
        return values + layout.over_items(self._positions, values)

    def _positions(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        for conv in self.convs:
            values = values if lengths is None else zero_padding(values, lengths)
            values = conv(values.transpose(1, 2)).transpose(1, 2)
            values = nn.functional.gelu(nn.functional.layer_norm(values, values.shape[-1:]))
        return values
