"""One codebook of vectors: VQ as in VQ-VAE (arXiv:1711.00937), Euclidean or cosine, learnt by moving averages or gradients.

Three ways to learn. `"ema"`: each vector is a moving average of the frames that chose it (appendix A.1); vectors that nobody
chooses are put on frames of the batch; the first batch may seed them by k-means. `"gradient"`: vectors are parameters, drawn
to their frames by |sg(z) - e|² (equation 3; with `commitment=0.25` and a product of two this is the k-means variant of
vq-wav2vec, arXiv:1910.05453, section 3.2). `"frozen"`: they stay. Frames are drawn to their vectors by
`commitment`·|z - sg(e)|².
"""

from typing import Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import DataError
from sonorant.nn.quantize.kmeans import KMeans, Metric, fit_kmeans
from sonorant.nn.quantize.lloyd import cluster_sums, finite_rows, is_distributed, sum_over_processes
from sonorant.nn.quantize.nearest import Nearest
from sonorant.nn.quantize.quantizer import FrameCodes, FrameSeeds, code_counts, mean_square, straight_through

__all__ = ["Learning", "VectorCodebook", "frozen_codebook"]

Learning = Literal["ema", "gradient", "frozen"]


class VectorCodebook(nn.Module):
    """Vectors, and the nearest of them for each frame.

    Args:
        dim: width of frames and vectors.
        codebook_size: vectors.
        metric: `"cosine"` compares directions; vectors and quantised frames have length 1 (l2-normalised VQ,
            arXiv:2110.04627), and the commitment compares with the normalised frame.
        learn: `"ema"`, `"gradient"` or `"frozen"`.
        commitment: weight of |z - sg(e)|², a mean over frames and dim.
        decay: of the moving averages, for each training step.
        dead_below: a vector whose moving count is below this is put on a frame of the batch; 0: never.
        kmeans_init: the first training batch seeds the vectors by k-means.
        eps: of the Laplace smoothing of counts.
    """

    weight: Tensor
    counts: Tensor
    sums: Tensor
    started: Tensor

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        *,
        metric: Metric = "euclidean",
        learn: Learning = "ema",
        commitment: float = 1.0,
        decay: float = 0.99,
        dead_below: float = 0.0,
        kmeans_init: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        at_least("codebook_size", codebook_size, 2)
        one_of("learn", learn, ("ema", "gradient", "frozen"))
        one_of("metric", metric, ("euclidean", "cosine"))
        within("decay", decay, 0, 1)
        self.dim = self.output_dim = dim
        self.codebook_sizes = (codebook_size,)
        self.metric, self.learn, self.commitment = metric, learn, commitment
        self.decay, self.dead_below, self.eps = decay, dead_below, eps
        weight = self._measured(torch.randn(codebook_size, dim) * dim**-0.5)
        if learn == "gradient":
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
        if learn == "ema":
            self.register_buffer("counts", torch.ones(codebook_size))
            self.register_buffer("sums", weight.clone())
        self.register_buffer("started", torch.tensor(not kmeans_init))

    def forward(self, frames: Float[Tensor, "n dim"], seeds: FrameSeeds) -> FrameCodes:
        frames = self._measured(frames)
        if self.training and not bool(self.started):
            self._start(frames.detach())
        found = self._search(frames)
        chosen = self._measured(self.weight)[found]
        penalty = self.commitment * mean_square(frames, chosen.detach())
        if self.learn == "gradient":
            penalty = penalty + mean_square(chosen, frames.detach())
        values = straight_through(frames, chosen)
        if self.training and self.learn == "ema":
            self._update(frames.detach(), found, seeds)
        return FrameCodes(values, found[:, None], penalty)

    @torch.no_grad()
    def ids(self, frames: Float[Tensor, "n dim"]) -> Int[Tensor, "n codebook"]:
        return self._search(self._measured(frames))[:, None]

    def vectors(self, ids: Int[Tensor, "n codebook"]) -> Float[Tensor, "n dim"]:
        return self._measured(self.weight)[ids[:, 0]]

    def _measured(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors.float(), dim=-1) if self.metric == "cosine" else vectors.float()

    @torch.no_grad()
    def _search(self, frames: Tensor) -> Tensor:
        return Nearest(self._measured(self.weight))(frames)[0]

    # --- moving averages --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _update(self, frames: Tensor, ids: Tensor, seeds: FrameSeeds) -> None:
        """Appendix A.1 of arXiv:1711.00937; counts are smoothed, so that a rare vector does not fly off."""
        usable, ids = finite_rows(frames, ids)
        counts, sums = code_counts(ids, len(self.counts)), torch.zeros_like(self.sums)
        cluster_sums(usable, ids, sums)
        sum_over_processes(counts, sums)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + self.eps) / (total + len(self.counts) * self.eps) * total
        self.weight.copy_(self._measured(self.sums / smoothed[:, None]))
        if self.dead_below > 0:
            self._revive(frames, seeds)

    def _revive(self, frames: Tensor, seeds: FrameSeeds) -> None:
        """Puts vectors that are not chosen on frames of the batch, those whose seeds are least."""
        dead = (self.counts < self.dead_below).nonzero()[:, 0]
        if not len(dead):
            return
        order = seeds.frame.argsort()
        chosen = frames[order[frames.isfinite().all(dim=1)[order]][: len(dead)]]
        # All processes must hold the same vectors: the first one's frames are taken, as many as it has.
        given = torch.tensor(len(chosen), device=frames.device)
        rows = frames.new_zeros(len(dead), self.dim)
        rows[: len(chosen)] = chosen
        _from_first(given, rows)
        dead, rows = dead[: int(given)], rows[: int(given)]
        self.weight[dead] = rows
        self.counts[dead] = self.dead_below
        self.sums[dead] = rows * self.dead_below

    @torch.no_grad()
    def _start(self, frames: Tensor) -> None:
        """Seeds the vectors from the first batch that has any frames."""
        weight = self.weight.detach().clone()
        here = torch.tensor(len(frames), device=frames.device)
        if len(frames):
            weight = self._measured(_first_vectors(frames, len(weight), self.metric))
        _from_first(here, weight)
        if not int(here):
            return
        self.weight.copy_(weight)
        if self.learn == "ema":
            self.counts.fill_(1)
            self.sums.copy_(weight)
        self.started.fill_(True)


def _first_vectors(frames: Tensor, count: int, metric: Metric) -> Tensor:
    """k-means where there are enough distinct frames, else frames with a little noise, repeated."""
    if len(frames) >= 2 * count:
        try:
            return fit_kmeans(lambda: iter([frames]), count, metric=metric, sample_passes=0, passes=8).centers
        except DataError:
            pass
    generator = torch.Generator().manual_seed(count)
    chosen = frames[torch.arange(count, device=frames.device) % len(frames)]
    noise = torch.randn(chosen.shape, generator=generator).to(frames.device)
    return chosen + 0.01 * chosen.std() * noise


def _from_first(*tensors: Tensor) -> None:
    if is_distributed():
        for tensor in tensors:
            torch.distributed.broadcast(tensor, src=0)


def frozen_codebook(model: KMeans) -> VectorCodebook:
    """Centres of a k-means model as a codebook that does not learn."""
    codebook = VectorCodebook(
        model.dim, model.num_clusters, metric=cast(Metric, model.metric), learn="frozen", commitment=0
    )
    codebook.to(model.centers.device).weight.copy_(model.centers)
    return codebook
