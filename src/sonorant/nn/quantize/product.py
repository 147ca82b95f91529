"""A product of codebooks: the frame is cut into groups, and each has a codebook (product quantisation)."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.nn.quantize.quantizer import Codebook, FrameCodes, FrameSeeds

__all__ = ["Product"]


class Product(nn.Module):
    """Codebooks side by side.

    Args:
        codebooks: one a group; their widths add up to the frame's. One that stands in several places is shared.

    The penalty is the mean over groups, as if the groups were one frame.
    """

    def __init__(self, codebooks: Sequence[nn.Module]) -> None:
        super().__init__()
        if not codebooks:
            raise ConfigError("a product needs at least one codebook")
        self.codebooks = nn.ModuleList(codebooks)
        self.widths = [part.dim for part in self._parts]
        self.dim, self.output_dim = sum(self.widths), sum(part.output_dim for part in self._parts)
        self._columns = [len(part.codebook_sizes) for part in self._parts]
        self.codebook_sizes = tuple(size for part in self._parts for size in part.codebook_sizes)

    @property
    def _parts(self) -> list[Codebook]:
        return [cast(Codebook, part) for part in self.codebooks]

    def forward(self, frames: Float[Tensor, "n dim"], seeds: FrameSeeds) -> FrameCodes:
        groups = zip(self._parts, frames.split(self.widths, dim=1))
        found = [part(group, FrameSeeds(seeds.item + i, seeds.frame + i)) for i, (part, group) in enumerate(groups)]
        penalty = torch.stack([one.penalty for one in found]).mean()
        return FrameCodes(
            torch.cat([one.values for one in found], 1), torch.cat([one.ids for one in found], 1), penalty
        )

    def ids(self, frames: Float[Tensor, "n dim"]) -> Int[Tensor, "n codebook"]:
        groups = zip(self._parts, frames.split(self.widths, dim=1))
        return torch.cat([part.ids(group) for part, group in groups], dim=1)

    def vectors(self, ids: Int[Tensor, "n codebook"]) -> Float[Tensor, "n dim"]:
        groups = zip(self._parts, ids.split(self._columns, dim=1))
        return torch.cat([part.vectors(group) for part, group in groups], dim=1)
