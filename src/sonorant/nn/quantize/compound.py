"""k-means in several codebooks: residual, product, and a tree of two levels; all fitted over a stream.

They end in the same parts as trained quantisers do (`Residual`, `Product`), with vectors that do not learn; the tree is its
own, for its second search depends on the first.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least
from sonorant.core.errors import ConfigError, DataError
from sonorant.nn.quantize.kmeans import Frames, KMeans, fit_kmeans
from sonorant.nn.quantize.lloyd import share_sample
from sonorant.nn.quantize.nearest import Nearest
from sonorant.nn.quantize.product import Product
from sonorant.nn.quantize.quantizer import FrameCodes, FrameSeeds
from sonorant.nn.quantize.residual import Residual
from sonorant.nn.quantize.stream import Reservoir, even_blocks
from sonorant.nn.quantize.vq import frozen_codebook

__all__ = ["KMeansTree", "fit_kmeans_tree", "fit_product_kmeans", "fit_residual_kmeans"]


def _mapped(frames: Frames, function: Callable[[Tensor], Tensor]) -> Frames:
    def stream() -> Iterator[Tensor]:
        return (function(block.float()) for block in frames())

    return stream


def fit_residual_kmeans(frames: Frames, sizes: Sequence[int], **settings: Any) -> Residual:
    """k-means of the frames, then of what that left over, and so on.

    Args:
        frames: called once for each pass; gives blocks `(n, dim)`.
        sizes: clusters of each level.
        settings: fields of `KMeansConfig`.
    """
    levels: list[nn.Module] = []

    def rest(block: Tensor) -> Tensor:
        for level in levels:
            block = block - level.vectors(level.ids(block))  # type: ignore[operator]
        return block

    for size in sizes:
        levels.append(frozen_codebook(fit_kmeans(_mapped(frames, rest), size, **settings)))
    return Residual(levels)


def fit_product_kmeans(frames: Frames, num_groups: int, num_clusters: int, **settings: Any) -> Product:
    """k-means of each group of dimensions by itself.

    Args:
        frames: called once for each pass of each group; gives blocks `(n, dim)`.
        num_groups: must divide dim.
        num_clusters: of each group.
        settings: fields of `KMeansConfig`.
    """
    first = next(even_blocks(frames(), 1), None)
    if first is None:
        raise DataError("the stream of frames is empty")
    if first.shape[1] % num_groups:
        raise ConfigError(f"num_groups must divide dim, got num_groups={num_groups} and dim={first.shape[1]}")
    width = first.shape[1] // num_groups

    def group(index: int) -> Frames:
        return _mapped(frames, lambda block: block[:, index * width : (index + 1) * width])

    return Product([frozen_codebook(fit_kmeans(group(i), num_clusters, **settings)) for i in range(num_groups)])


class KMeansTree(nn.Module):
    """Two levels of k-means: a frame's cluster, and within that its cluster's cluster.

    Args:
        top: clusters of the first level.
        below: clusters within each of them.
        dim: width of the frames.

    Frames are compared with top + below centres, where plain k-means would compare with top · below. One codebook of
    top · below codes; the id is that of the top cluster times `below` plus the id within it.
    """

    centers: Tensor

    def __init__(self, top: int, below: int, dim: int) -> None:
        super().__init__()
        at_least("below", below, 1)
        self.dim = self.output_dim = dim
        self.codebook_sizes, self.below = (top * below,), below
        self.top = KMeans(top, dim)
        self.register_buffer("centers", torch.zeros(top, below, dim))

    def forward(self, frames: Float[Tensor, "n dim"], seeds: FrameSeeds) -> FrameCodes:
        ids = self.ids(frames)
        return FrameCodes(self.vectors(ids), ids, frames.new_zeros(()))

    @torch.no_grad()
    def ids(self, frames: Float[Tensor, "n dim"]) -> Int[Tensor, "n codebook"]:
        top = self.top.predict(frames)
        ids = top * self.below
        for cluster in top.unique().tolist():
            members = (top == cluster).nonzero()[:, 0]
            ids[members] += Nearest(self.centers[cluster])(frames[members])[0]
        return ids[:, None]

    def vectors(self, ids: Int[Tensor, "n codebook"]) -> Float[Tensor, "n dim"]:
        return self.centers.float().flatten(0, 1)[ids[:, 0]]


def fit_kmeans_tree(
    frames: Frames, top: int, below: int, *, sample_size: int | None = None, seed: int = 0, **settings: Any
) -> KMeansTree:
    """Fits the first level on the stream, and all of the second on a sample of it.

    Args:
        frames: called once for each pass; gives blocks `(n, dim)`.
        top: clusters of the first level.
        below: clusters within each of them; where a cluster has fewer distinct frames some of them are the same.
        sample_size: frames that are held; where None 32 for each cluster of the second level, at least 65536.
        seed: of all draws.
        settings: further fields of `KMeansConfig`.
    """
    first = fit_kmeans(frames, top, seed=seed, **settings)
    reservoir = Reservoir(sample_size or max(65536, 32 * top * below), seed)
    for block in even_blocks(frames(), 4096):
        reservoir.add(block)
    sample = share_sample(reservoir)[0]
    tree = KMeansTree(top, below, first.dim).to(sample.device)
    tree.top.load_state_dict(first.state_dict())
    labels = first.predict(sample)
    for cluster in range(top):
        members = sample[labels == cluster]
        tree.centers[cluster] = _children(members, below, seed, settings) if len(members) else first.centers[cluster]
    return tree


def _children(members: Tensor, below: int, seed: int, settings: dict[str, Any]) -> Tensor:
    distinct = members.unique(dim=0)
    if len(distinct) <= below:
        return distinct[torch.arange(below, device=members.device).clamp(max=len(distinct) - 1)]
    try:
        return fit_kmeans(lambda: iter([members]), below, seed=seed, **settings).centers
    except DataError:  # distinct by no more than rounding
        return distinct[torch.arange(below, device=members.device) * len(distinct) // below]
