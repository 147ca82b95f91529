"""Multi-codebook quantisation (MVQ, arXiv:2211.00508): a frame is the sum of one vector from each of several codebooks.

Unlike residual levels the codebooks are equals. Indices are found by residual search and then refined together (section
3.2): each codebook proposes its best few replacements with the others held, neighbours join their proposals and keep the
best few pairs, pairs of pairs do the same, and so on up to all of them. The vectors are the least-squares solution for the
indices. Read `MultiCodebook`, then `fit_multi`.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least
from sonorant.nn.quantize.compound import fit_residual_kmeans
from sonorant.nn.quantize.kmeans import Frames
from sonorant.nn.quantize.lloyd import cluster_sums, sum_over_processes
from sonorant.nn.quantize.nearest import Nearest
from sonorant.nn.quantize.quantizer import FrameCodes, FrameSeeds
from sonorant.nn.quantize.stream import even_blocks

__all__ = ["MultiCodebook", "fit_multi"]

_BLOCK = 2048
_MOST_VALUES = 1 << 23
"""Values of all proposed vectors of a block: 32 MB."""


class MultiCodebook(nn.Module):
    """Codebooks whose chosen vectors add up to the frame.

    Args:
        dim: width of the frames.
        codebook_size: vectors a codebook (256).
        num_codebooks: codebooks (8 or 16).
        sweeps: rounds of refinement after the residual search, at most.
        proposals: how many replacements each codebook, and each group of them, proposes in a round.

    Vectors come from `fit_multi`; until then they are random, level by level smaller. Values carry no gradient.
    """

    codes: Tensor
    mean: Tensor

    def __init__(
        self, dim: int, codebook_size: int = 256, num_codebooks: int = 8, sweeps: int = 3, proposals: int = 8
    ) -> None:
        super().__init__()
        for name, value in (("codebook_size", codebook_size), ("num_codebooks", num_codebooks)):
            at_least(name, value, 1)
        at_least("sweeps", sweeps, 0)
        self.dim = self.output_dim = dim
        at_least("proposals", proposals, 1)
        self.codebook_sizes, self.sweeps, self.proposals = (codebook_size,) * num_codebooks, sweeps, proposals
        scale = 0.7 ** torch.arange(num_codebooks).float()
        self.register_buffer("codes", torch.randn(num_codebooks, codebook_size, dim) * scale[:, None, None])
        self.register_buffer("mean", torch.zeros(dim))

    @torch.no_grad()
    def forward(self, frames: Float[Tensor, "n dim"], seeds: FrameSeeds) -> FrameCodes:
        ids = self.ids(frames)
        return FrameCodes(self.vectors(ids), ids, frames.new_zeros(()))

    @torch.no_grad()
    def ids(self, frames: Float[Tensor, "n dim"]) -> Int[Tensor, "n codebook"]:
        codes = self.codes.float()
        if not len(frames):
            return torch.zeros(0, len(codes), dtype=torch.long, device=frames.device)
        # Squared distances within each codebook: what a replacement adds by its length.
        apart = torch.cdist(codes, codes).square()
        books = torch.arange(len(codes), device=codes.device)
        searches = [Nearest(book) for book in codes]
        size = max(16, _MOST_VALUES // (len(codes) * self.proposals * self.dim))
        found = []
        for block in (frames.float() - self.mean).split(size):
            ids = _residual_search(block, codes, searches)
            for _ in range(self.sweeps):
                ids, before = self._refined(block, ids, apart, books), ids
                if torch.equal(ids, before):
                    break
            found.append(ids)
        return torch.cat(found)

    def _refined(self, frames: Tensor, ids: Tensor, apart: Tensor, books: Tensor) -> Tensor:
        """One round of proposals; the error never rises, for to change nothing is always among them."""
        codes = self.codes.float()
        chosen = codes[books, ids]  # (n, codebook, dim)
        rest = frames - chosen.sum(dim=1)
        products = torch.einsum("nd,ckd->nck", rest, codes)
        # |r - (b - a)|² - |r|² for each replacement b of a code a
        errors = 2 * (products.gather(2, ids[..., None]) - products) + apart[books, ids]
        errors, picks = _best(errors, ids[..., None], min(self.proposals, codes.shape[1]))
        moves = codes[books[:, None], picks] - chosen[:, :, None]
        return _joined(errors, moves, picks[..., None])

    def vectors(self, ids: Int[Tensor, "n codebook"]) -> Float[Tensor, "n dim"]:
        books = torch.arange(ids.shape[1], device=ids.device)
        return self.codes.float()[books, ids].sum(dim=1) + self.mean


def _residual_search(frames: Tensor, codes: Tensor, searches: list[Nearest]) -> Tensor:
    """One codebook after the other, each on what is left."""
    columns = []
    for book, search in zip(codes, searches):
        columns.append(search(frames)[0])
        frames = frames - book[columns[-1]]
    return torch.stack(columns, dim=1)


def _best(errors: Tensor, unchanged: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` proposals of least error, the one that changes nothing always first (with error 0)."""
    errors, picks = errors.scatter(-1, unchanged, float("-inf")).topk(count, dim=-1, largest=False)
    errors[..., 0] = 0
    return errors, picks


def _joined(errors: Tensor, moves: Tensor, picks: Tensor) -> Tensor:
    """The best joint proposal `(n, codebook)`.

    Args:
        errors: what each proposal adds to the squared error `(n, group, proposal)`.
        moves: how it moves the sum `(n, group, proposal, dim)`.
        picks: the codes that it stands for `(n, group, proposal, codebook)`.

    Two moves together add their errors and twice their product.
    """
    count = errors.shape[2]
    groups = [(errors[:, i], moves[:, i], picks[:, i]) for i in range(errors.shape[1])]
    while len(groups) > 1:
        pairs, odd = zip(groups[0::2], groups[1::2]), groups[len(groups) // 2 * 2 :]
        groups = [_pair(first, second, count) for first, second in pairs] + odd
    total, _, codes = groups[0]
    best = total.argmin(dim=1)
    return codes[torch.arange(len(best), device=best.device), best]


def _pair(first: tuple[Tensor, Tensor, Tensor], second: tuple[Tensor, Tensor, Tensor], count: int) -> Any:
    """The best `count` of all pairs of two groups' proposals."""
    joint = first[0][:, :, None] + second[0][:, None] + 2 * first[1] @ second[1].transpose(1, 2)
    unchanged = joint.new_zeros(len(joint), 1, dtype=torch.long)
    errors, places = _best(joint.flatten(1), unchanged, count)
    rows = torch.arange(len(joint), device=joint.device)[:, None]
    left, right = places // second[0].shape[1], places % second[0].shape[1]
    moves = first[1][rows, left] + second[1][rows, right]
    return errors, moves, torch.cat([first[2][rows, left], second[2][rows, right]], dim=-1)


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


def _least_squares(model: MultiCodebook, blocks: Iterable[Tensor], ridge: float) -> None:
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
