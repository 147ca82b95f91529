"""DinoSR's online codebook (arXiv:2305.10005, section 2.2): clusters of a teacher's frames that follow it while it moves.

Sums and counts of each code are moving averages; a code's vector is their ratio (equation 3). Codes that are not chosen in a
batch keep their place, for nothing is added to them.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, within
from sonorant.nn.quantize.lloyd import cluster_sums, finite_rows, sum_over_processes
from sonorant.nn.quantize.nearest import Nearest
from sonorant.nn.quantize.quantizer import FrameCodes, FrameSeeds, code_counts

__all__ = ["OnlineCodebook"]


class OnlineCodebook(nn.Module):
    """Vectors that are moving averages of the frames that chose them.

    Args:
        dim: width of the frames.
        codebook_size: codes (256).
        decay: of sums and counts for each training step in which a code is chosen (0.9).

    Frames get no gradient and no penalty: the labels train another network.
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, dim: int, codebook_size: int = 256, decay: float = 0.9) -> None:
        super().__init__()
        at_least("codebook_size", codebook_size, 2)
        within("decay", decay, 0, 1)
        self.dim = self.output_dim = dim
        self.codebook_sizes, self.decay = (codebook_size,), decay
        self.register_buffer("sums", torch.randn(codebook_size, dim))
        self.register_buffer("counts", torch.ones(codebook_size))

    @property
    def weight(self) -> Float[Tensor, "code dim"]:
        """The vectors."""
        return self.sums.float() / self.counts.float()[:, None]

    @torch.no_grad()
    def forward(self, frames: Float[Tensor, "n dim"], seeds: FrameSeeds) -> FrameCodes:
        ids = self.ids(frames)
        values = self.vectors(ids)
        if self.training:
            self._update(frames, ids[:, 0])
        return FrameCodes(values, ids, frames.new_zeros(()))

    @torch.no_grad()
    def ids(self, frames: Float[Tensor, "n dim"]) -> Int[Tensor, "n codebook"]:
        return Nearest(self.weight)(frames)[0][:, None]

    def vectors(self, ids: Int[Tensor, "n codebook"]) -> Float[Tensor, "n dim"]:
        return self.weight[ids[:, 0]]

    def _update(self, frames: Tensor, ids: Tensor) -> None:
        frames, ids = finite_rows(frames, ids)
        sums, counts = torch.zeros_like(self.sums), code_counts(ids, len(self.counts))
        cluster_sums(frames, ids, sums)
        sum_over_processes(sums, counts)
        chosen = counts > 0
        self.sums.copy_(torch.where(chosen[:, None], self.decay * self.sums + (1 - self.decay) * sums, self.sums))
        self.counts.copy_(torch.where(chosen, self.decay * self.counts + (1 - self.decay) * counts, self.counts))
