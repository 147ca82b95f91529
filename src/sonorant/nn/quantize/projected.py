"""Linear maps around a codebook: quantise in few dimensions what is wide (DAC's factorised codes, arXiv:2306.06546)."""

from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.nn.quantize.quantizer import Codebook, FrameCodes, FrameSeeds

__all__ = ["Projected"]


class Projected(nn.Module):
    """`project_in`, the codebook, `project_out`.

    Args:
        dim: width of the frames, in and out.
        codebook: works in its own `dim`.

    Where both maps are orthonormal rows and columns of one matrix at the start, as here, decoding and encoding again gives
    the same indices; training may change that.
    """

    def __init__(self, dim: int, codebook: nn.Module) -> None:
        super().__init__()
        self.codebook, self.dim, self.output_dim = codebook, dim, dim
        inner = cast(Codebook, codebook)
        self.codebook_sizes = inner.codebook_sizes
        self.project_in, self.project_out = nn.Linear(dim, inner.dim), nn.Linear(inner.output_dim, dim)
        with torch.no_grad():
            nn.init.orthogonal_(self.project_in.weight)
            self.project_out.weight.copy_(torch.linalg.pinv(self.project_in.weight))
            self.project_in.bias.zero_()
            self.project_out.bias.zero_()

    def forward(self, frames: Float[Tensor, "n dim"], seeds: FrameSeeds) -> FrameCodes:
        found = self.codebook(self.project_in(frames), seeds)
        return FrameCodes(self.project_out(found.values), found.ids, found.penalty)

    def ids(self, frames: Float[Tensor, "n dim"]) -> Int[Tensor, "n codebook"]:
        return cast(Codebook, self.codebook).ids(self.project_in(frames))

    def vectors(self, ids: Int[Tensor, "n codebook"]) -> Float[Tensor, "n dim"]:
        return self.project_out(cast(Codebook, self.codebook).vectors(ids))
