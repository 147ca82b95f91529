"""Maps before a codebook: `Projected` quantises in few dimensions what is wide (DAC's factorised codes, arXiv:2306.06546),
`Normed` keeps frames from shrinking into one code (vq-wav2vec's k-means, arXiv:1910.05453)."""

from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.nn.quantize.quantizer import Codebook, FrameCodes, FrameSeeds

__all__ = ["Normed", "Projected"]


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


class Normed(nn.Module):
    """A linear map and a norm within each group of a frame, then the codebook.

    The authors of vq-wav2vec norm a group over all frames of an item; here it is over each frame, so that a frame's code
    depends on nothing else.

    Args:
        num_groups: equal parts of a frame.
        codebook: works on the normed frame.
    """

    def __init__(self, num_groups: int, codebook: nn.Module) -> None:
        super().__init__()
        inner = cast(Codebook, codebook)
        self.codebook, self.dim, self.output_dim = codebook, inner.dim, inner.output_dim
        self.codebook_sizes, self.num_groups = inner.codebook_sizes, num_groups
        self.project = nn.Conv1d(inner.dim, inner.dim, 1, groups=num_groups, bias=False)
        self.norm = nn.GroupNorm(num_groups, inner.dim)

    def forward(self, frames: Float[Tensor, "n dim"], seeds: FrameSeeds) -> FrameCodes:
        return cast(FrameCodes, self.codebook(self._normed(frames), seeds))

    def ids(self, frames: Float[Tensor, "n dim"]) -> Int[Tensor, "n codebook"]:
        return cast(Codebook, self.codebook).ids(self._normed(frames))

    def vectors(self, ids: Int[Tensor, "n codebook"]) -> Float[Tensor, "n dim"]:
        return cast(Codebook, self.codebook).vectors(ids)

    def _normed(self, frames: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.project(frames[..., None]))[..., 0])
