"""Patches of a spectrogram: rectangles of bands × frames as vectors, their positions, and columns of them as frames.

A column holds the patches of one stretch of time, from the lowest band up: what goes through an encoder as `(batch, column,
row · dim)` looks like frames to everyone outside. Tokens are counted column by column, so that those of an item stand
together in front of its padding.
"""

from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.lengths import Geometry, zero_padding
from sonorant.core.types import Features
from sonorant.nn.position import sinusoids

__all__ = ["PatchGrid", "PatchPositions", "column_features", "join_rows", "patch_sinusoids", "token_features"]

Count = TypeVar("Count", int, Tensor)


class PatchGrid:
    """How a spectrogram is cut.

    Args:
        input_dim: bands.
        patch: bands and frames of a patch.
        stride: bands and frames from one patch to the next; bands that no whole patch covers are left out.

    >>> grid = PatchGrid(128, (16, 16), (10, 10))
    >>> grid.num_rows, grid.output_lengths(1024), grid.patch_dim
    (12, 101, 256)
    """

    def __init__(self, input_dim: int, patch: tuple[int, int], stride: tuple[int, int]) -> None:
        for name, value in zip(("patch", "patch", "stride", "stride"), (*patch, *stride), strict=True):
            at_least(name, value, 1)
        if patch[0] > input_dim:
            raise ConfigError(f"a patch of {patch[0]} bands is higher than the {input_dim} bands that come in")
        self.patch, self.stride = patch, stride
        self.num_rows = (input_dim - patch[0]) // stride[0] + 1
        self.patch_dim = patch[0] * patch[1]
        self.geometry = Geometry.conv(patch[1], stride[1])

    def output_lengths(self, lengths: Count) -> Count:
        """Columns for frames; an incomplete last patch is left out."""
        return self.geometry.output_lengths(lengths)

    def cut(
        self, values: Float[Tensor, "batch frame band"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch column patches"], Int[Tensor, " batch"]]:
        """The patches of each column side by side, each of them band by band, and how many columns an item has."""
        (height, width), (up, right) = self.patch, self.stride
        values = zero_padding(values, lengths)
        if values.shape[1] < width:  # zeros are cut off again by the lengths
            values = nn.functional.pad(values, (0, 0, 0, width - values.shape[1]))
        num_columns = (values.shape[1] - width) // right + 1
        device = values.device
        frames = torch.arange(num_columns, device=device)[:, None] * right + torch.arange(width, device=device)
        bands = torch.arange(self.num_rows, device=device)[:, None] * up + torch.arange(height, device=device)
        # (batch, column, width, row, height) → (batch, column, row, height, width)
        patches = values[:, frames][..., bands].permute(0, 1, 3, 4, 2).flatten(2)
        counts = self.output_lengths(lengths)
        return zero_padding(patches, counts), counts


def patch_sinusoids(
    num_columns: int, num_rows: int, dim: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "column row dim"]:
    """Sinusoids of the row in the first half of `dim`, of the column in the second (as in MAE, arXiv:2111.06377)."""
    rows = sinusoids(torch.arange(num_rows, device=device), dim // 2)
    columns = sinusoids(torch.arange(num_columns, device=device), dim // 2)
    return torch.cat([rows.expand(num_columns, -1, -1), columns[:, None].expand(-1, num_rows, -1)], dim=-1)


class PatchPositions(nn.Module):
    """Adds to each patch what tells its row and column.

    Args:
        kind: "learned" for each place, "separate" for rows and columns, or "sinusoid", which knows no end.
        num_rows: of the grid.
        max_columns: that learned positions reach.
        dim: width of a patch.
        num_extra: tokens before the patches, which learned positions know too.
    """

    def __init__(self, kind: str, num_rows: int, max_columns: int, dim: int, num_extra: int = 0) -> None:
        super().__init__()
        self.kind, self.num_rows, self.max_columns, self.dim = kind, num_rows, max_columns, dim
        self.num_extra = num_extra
        if kind == "learned":  # the extra tokens, then row by row
            self.table = nn.Parameter(0.02 * torch.randn(num_extra + num_rows * max_columns, dim))
        elif kind == "separate":
            self.rows = nn.Parameter(0.02 * torch.randn(num_rows, dim))
            self.columns = nn.Parameter(0.02 * torch.randn(max_columns, dim))

    def forward(
        self, values: Float[Tensor, "batch column row dim"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch column row dim"]:
        """The patches with their positions.

        Raises:
            DataError: an item has more columns than there are positions.
        """
        num_columns = values.shape[1]
        if self.kind == "sinusoid":
            return values + patch_sinusoids(num_columns, self.num_rows, self.dim, values.device).to(values.dtype)
        if not torch.compiler.is_compiling() and num_columns > self.max_columns:
            longest = int(lengths.max()) if len(lengths) else 0
            if longest > self.max_columns:
                raise DataError(
                    f"an item has {longest} columns of patches and there are positions for {self.max_columns}: cut the "
                    "audio, or raise max_columns"
                )
        # What lies beyond the last position is padding.
        places = torch.arange(num_columns, device=values.device).clamp(max=self.max_columns - 1)
        if self.kind == "learned":
            table = self.table[self.num_extra :].unflatten(0, (self.num_rows, self.max_columns))
            return values + table[:, places].transpose(0, 1)
        return values + self.rows + self.columns[places][:, None]

    def of_extra(self, extra: Float[Tensor, "extra dim"]) -> Float[Tensor, "extra dim"]:
        """The extra tokens with their positions, where there are such."""
        return extra + self.table[: self.num_extra] if self.kind == "learned" else extra


def token_features(
    values: Float[Tensor, "batch column row dim"], lengths: Int[Tensor, " batch"], frame_rate: float
) -> Features:
    """Patches as tokens, column by column; `lengths` are in columns, those that come out in tokens."""
    counts = lengths * values.shape[2]
    return Features(zero_padding(values.flatten(1, 2), counts), counts, frame_rate * values.shape[2])


def column_features(tokens: Features, num_rows: int) -> Features:
    """Tokens as columns of patches side by side; inverts `token_features`."""
    values = tokens.values.unflatten(1, (-1, num_rows)).flatten(2)
    return Features(values, tokens.lengths // num_rows, tokens.frame_rate / num_rows)


def join_rows(columns: Features, num_rows: int, join: str) -> Features:
    """Columns as frames: the patches side by side ("concat") or their mean ("mean")."""
    if join == "concat":
        return columns
    values = columns.values.unflatten(-1, (num_rows, -1)).mean(dim=2)
    return Features(values, columns.lengths, columns.frame_rate)
