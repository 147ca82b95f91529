"""Multi-codebook quantisation (MVQ, arXiv:2211.00508): a frame is the sum of one vector from each of several codebooks.

Unlike residual levels the codebooks are equals: indices are found by residual search and then refined one codebook at a time
with the others held, until sweeps are over (section 3.2); the vectors are the least-squares solution for the indices. With
all products between codes in one table a sweep costs a few additions a code, not a product with the frames.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sonorant.core.config import at_least
from sonorant.nn.quantize.compound import fit_residual_kmeans
from sonorant.nn.quantize.kmeans import Frames
from sonorant.nn.quantize.lloyd import cluster_sums, sum_over_processes
from sonorant.nn.quantize.quantizer import FrameCodes, FrameSeeds
from sonorant.nn.quantize.stream import even_blocks

__all__ = ["MultiCodebook", "fit_multi"]

_BLOCK = 2048


class MultiCodebook(nn.Module):
    """Codebooks whose chosen vectors add up to the frame.

    Args:
        dim: width of the frames.
        codebook_size: vectors a codebook (256).
        num_codebooks: codebooks (8 or 16).
        sweeps: refinements over all codebooks after the residual search, in search and in training.

    Vectors come from `fit_multi`; until then they are random, level by level smaller. Values carry no gradient.
    """

    codes: Tensor
    mean: Tensor

    def __init__(self, dim: int, codebook_size: int = 256, num_codebooks: int = 8, sweeps: int = 3) -> None:
        super().__init__()
        for name, value in (("codebook_size", codebook_size), ("num_codebooks", num_codebooks)):
            at_least(name, value, 1)
        at_least("sweeps", sweeps, 0)
        self.dim = self.output_dim = dim
        self.codebook_sizes, self.sweeps = (codebook_size,) * num_codebooks, sweeps
        scale = 0.7 ** torch.arange(num_codebooks).float()
        self.register_buffer("codes", torch.randn(num_codebooks, codebook_size, dim) * scale[:, None, None])
        self.register_buffer("mean", torch.zeros(dim))

    @torch.no_grad()
    def forward(self, frames: Float[Tensor, "n dim"], seeds: FrameSeeds) -> FrameCodes:
        ids = self.ids(frames)
        return FrameCodes(self.vectors(ids), ids, frames.new_zeros(()))

    @torch.no_grad()
    def ids(self, frames: Float[Tensor, "n dim"]) -> Int[Tensor, "n codebook"]:
        if not len(frames):
            return torch.zeros(0, len(self.codes), dtype=torch.long, device=frames.device)
        codes = self.codes.float()
        num_codebooks, size, dim = codes.shape
        flat = codes.view(-1, dim)
        between = (flat @ flat.T).view(num_codebooks, size, num_codebooks, size)
        halves = flat.square().sum(dim=1).view(num_codebooks, size) / 2
        # Products of each code of one codebook with all codes of the others; its own stand at 0.
        tables = []
        for book in range(num_codebooks):
            table = between[:, :, book].clone()
            table[book] = 0
            tables.append(table.view(-1, size))
        centred = (frames.float() - self.mean).split(_BLOCK)
        return torch.cat([self._refined(block @ flat.T, halves, tables) for block in centred])

    def _refined(self, products: Tensor, halves: Tensor, tables: list[Tensor]) -> Tensor:
        """Residual search and sweeps for one block, from its products with all codes `(n, codebook · code)`."""
        num_codebooks, size = halves.shape
        scores = products.view(len(products), num_codebooks, size) - halves
        starts = torch.arange(num_codebooks, device=products.device) * size
        ids = scores.new_zeros(len(products), num_codebooks, dtype=torch.long)
        for sweep in range(self.sweeps + 1):
            before = ids.clone()
            for book in range(num_codebooks):
                # The first sweep is the residual search: only the codebooks before this one have a say.
                last = book if sweep == 0 else num_codebooks
                score = scores[:, book]
                if last:
                    score = score - F.embedding_bag(ids[:, :last] + starts[:last], tables[book], mode="sum")
                ids[:, book] = score.argmax(dim=1)
            if sweep and torch.equal(ids, before):
                break
        return ids

    def vectors(self, ids: Int[Tensor, "n codebook"]) -> Float[Tensor, "n dim"]:
        books = torch.arange(ids.shape[1], device=ids.device)
        return self.codes.float()[books, ids].sum(dim=1) + self.mean


def fit_multi(
    frames: Frames,
    num_codebooks: int = 8,
    codebook_size: int = 256,
    *,
    passes: int = 5,
    sweeps: int = 3,
    ridge: float = 1e-2,
    **settings: Any,
) -> MultiCodebook:
    """Fits codebooks on a stream: residual k-means first, then `passes` of refined indices and least squares.

    Args:
        frames: called once for each pass; gives blocks `(n, dim)`.
        num_codebooks: codebooks.
        codebook_size: vectors of each.
        passes: over the stream, after those of the residual k-means.
        sweeps: see `MultiCodebook`.
        ridge: frames' worth of pull towards the vectors of the pass before; codebooks may be shifted against one another
            without any change in their sums, which it forbids.
        settings: fields of `KMeansConfig` for the start.

    Raises:
        DataError: as `fit_kmeans`.
    """
    start = fit_residual_kmeans(frames, (codebook_size,) * num_codebooks, **settings)
    weights = torch.stack([level.weight for level in start.levels])  # type: ignore[misc]
    model = MultiCodebook(start.dim, codebook_size, num_codebooks, sweeps).to(weights.device)
    model.codes.copy_(weights)
    for _ in range(passes):
        _least_squares(model, even_blocks(frames(), _BLOCK), ridge)
    return model


def _least_squares(model: MultiCodebook, blocks: Iterable[Tensor] | Iterator[Tensor], ridge: float) -> None:
    """One pass: (HᵀH + ridge) Δ = Hᵀ(x - H·codes), H the indices as zeros and ones; the error over the pass never rises."""
    num_codebooks, size, dim = model.codes.shape
    total = num_codebooks * size
    starts = torch.arange(num_codebooks, device=model.codes.device) * size
    together = torch.zeros(total * total, dtype=torch.float64, device=model.codes.device)
    left = torch.zeros(total, dim, dtype=torch.float64, device=model.codes.device)
    for block in blocks:
        ids = model.ids(block)
        rest = block - model.vectors(ids)
        places = ids + starts
        pairs = (places[:, :, None] * total + places[:, None, :]).flatten()
        together.index_add_(0, pairs, torch.ones_like(pairs, dtype=torch.float64))
        sums = torch.zeros(total, dim, device=block.device)
        for column in places.unbind(dim=1):
            cluster_sums(rest, column, sums)
        left += sums
    sum_over_processes(together, left)
    system = together.view(total, total) + ridge * torch.eye(total, dtype=torch.float64, device=left.device)
    step = torch.cholesky_solve(left, torch.linalg.cholesky(system))
    model.codes += step.view(num_codebooks, size, dim).to(model.codes.dtype)
