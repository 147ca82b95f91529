"""The random-projection quantiser of BEST-RQ (arXiv:2202.01855, section 3.1): a frozen projection and a frozen codebook.

The projection keeps the geometry of the frames, the codebook cuts it up; nothing is learnt, so labels are there from the
first step. Frames must come normalised to mean 0 and variance 1 a dimension (section 3.1: without it few codes are used).
Several codebooks, each with its own projection, give several label streams (NEST, arXiv:2408.13106).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sonorant.core.config import at_least
from sonorant.core.seed import derive
from sonorant.nn.quantize.nearest import Nearest
from sonorant.nn.quantize.quantizer import FrameCodes, FrameSeeds

__all__ = ["RandomProjection"]


class RandomProjection(nn.Module):
    """Random labels that respect likeness.

    Args:
        dim: width of the frames (BEST-RQ: four log-mel frames stacked, 320).
        codebook_size: codes a codebook (8192).
        code_dim: width of the projection (16).
        num_codebooks: independent projections and codebooks.
        seed: of all of them; the same labels on every machine, whatever torch's generator did.

    The vectors of a code are the frame of least length that the projections map onto it: the pseudo-inverse. Values carry
    no gradient.
    """

    projections: Tensor
    codes: Tensor

    def __init__(
        self, dim: int, codebook_size: int = 8192, code_dim: int = 16, num_codebooks: int = 1, seed: int = 0
    ) -> None:
        super().__init__()
        for name, value in (("codebook_size", codebook_size), ("code_dim", code_dim), ("num_codebooks", num_codebooks)):
            at_least(name, value, 1)
        self.dim = self.output_dim = dim
        self.codebook_sizes = (codebook_size,) * num_codebooks
        generator = torch.Generator().manual_seed(derive(seed, "random projection"))
        bound = (6 / (dim + code_dim)) ** 0.5  # Xavier's uniform start, section 3.1
        projections = (torch.rand(num_codebooks, code_dim, dim, generator=generator) * 2 - 1) * bound
        codes = torch.randn(num_codebooks, codebook_size, code_dim, generator=generator)
        self.register_buffer("projections", projections)
        self.register_buffer("codes", F.normalize(codes, dim=-1))

    def forward(self, frames: Float[Tensor, "n dim"], seeds: FrameSeeds) -> FrameCodes:
        ids = self.ids(frames)
        return FrameCodes(self.vectors(ids), ids, frames.new_zeros(()))

    @torch.no_grad()
    def ids(self, frames: Float[Tensor, "n dim"]) -> Int[Tensor, "n codebook"]:
        pairs = zip(self.projections.float(), self.codes.float())
        return torch.stack([Nearest(codes)(F.normalize(frames @ p.T, dim=1))[0] for p, codes in pairs], dim=1)

    @torch.no_grad()
    def vectors(self, ids: Int[Tensor, "n codebook"]) -> Float[Tensor, "n dim"]:
        books = torch.arange(ids.shape[1], device=ids.device)
        wanted = self.codes.float()[books, ids].flatten(1)
        return wanted @ torch.linalg.pinv(self.projections.float().flatten(0, 1)).T
