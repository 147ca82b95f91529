"""Residual quantisation (RVQ): each codebook quantises what those before it left over (arXiv:2107.03312, algorithm 1)."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import within
from sonorant.core.errors import ConfigError
from sonorant.core.seed import integers, uniform
from sonorant.nn.quantize.quantizer import Codebook, FrameCodes, FrameSeeds, straight_through

__all__ = ["Residual"]


class Residual(nn.Module):
    """Codebooks one after the other.

    Args:
        levels: codebooks of equal width.
        dropout: share of the items that in training are quantised by the first few levels only, so that one model serves
            many bitrates (section III-C); how many is drawn uniformly from 1 to all. What a level did not see has the index
            -1, and moves no statistics.

    The penalty is the mean over levels of those levels' own, each over the frames that it saw.
    """

    def __init__(self, levels: Sequence[nn.Module], dropout: float = 0.0) -> None:
        super().__init__()
        within("dropout", dropout, 0, 1)
        self.levels, self.dropout = nn.ModuleList(levels), dropout
        widths = {part.dim for part in self._parts}
        if len(widths) != 1:
            raise ConfigError(f"levels must be of one width, got {sorted(widths)}")
        self.dim = self.output_dim = widths.pop()
        self._columns = [len(part.codebook_sizes) for part in self._parts]
        self.codebook_sizes = tuple(size for part in self._parts for size in part.codebook_sizes)

    @property
    def _parts(self) -> list[Codebook]:
        return [cast(Codebook, part) for part in self.levels]

    def forward(self, frames: Float[Tensor, "n dim"], seeds: FrameSeeds) -> FrameCodes:
        depth = self._depth(seeds.item)
        rest, total, columns, penalties = frames, torch.zeros_like(frames), [], []
        for level, part in enumerate(self._parts):
            here = FrameSeeds(seeds.item + level, seeds.frame + level)
            if depth is None:
                found = part(rest, here)
                values, ids = found.values, found.ids
            else:
                seen = depth > level
                found = part(rest[seen], FrameSeeds(here.item[seen], here.frame[seen]))
                values = torch.zeros_like(rest).index_put((seen,), found.values)
                ids = found.ids.new_full((len(frames), found.ids.shape[1]), -1)
                ids[seen] = found.ids
            # The next level's share of the gradient comes through its own penalty alone.
            rest = rest - values.detach()
            total = total + values
            columns.append(ids)
            penalties.append(found.penalty)
        # One identity for the sum, not one a level: the gradient must not grow with the number of levels.
        return FrameCodes(straight_through(frames, total), torch.cat(columns, dim=1), torch.stack(penalties).mean())

    def _depth(self, items: Tensor) -> Tensor | None:
        """How many levels each frame passes; all frames of an item pass as many."""
        if not (self.training and self.dropout):
            return None
        depth = integers(items, "depth", low=1, high=len(self.levels) + 1)[:, 0]
        return torch.where(uniform(items, "dropout")[:, 0] < self.dropout, depth, len(self.levels))

    @torch.no_grad()
    def ids(self, frames: Float[Tensor, "n dim"]) -> Int[Tensor, "n codebook"]:
        columns = []
        for part in self._parts:
            columns.append(part.ids(frames))
            frames = frames - part.vectors(columns[-1])
        return torch.cat(columns, dim=1)

    def vectors(self, ids: Int[Tensor, "n codebook"]) -> Float[Tensor, "n dim"]:
        """The sum over levels; a level with the index -1 adds nothing."""
        total = torch.zeros(len(ids), self.dim, device=ids.device)
        for part, column in zip(self._parts, ids.split(self._columns, dim=1)):
            seen = (column >= 0).all(dim=1, keepdim=True)
            total = total + part.vectors(column.clamp(min=0)) * seen
        return total
