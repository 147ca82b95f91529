"""Finite scalar quantisation (FSQ, arXiv:2309.15505): each of a few dimensions is bounded and rounded; nothing is learnt."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.nn.quantize.quantizer import FrameCodes, FrameSeeds, straight_through

__all__ = ["FiniteScalar"]


class FiniteScalar(nn.Module):
    """A grid of `levels[0] × levels[1] × …` points in [-1, 1].

    Args:
        levels: points a dimension, each at least 3 (table 1 recommends (8, 5, 5, 5) for 2^10, (7, 5, 5, 5, 5) for 2^12).

    The first dimension changes fastest in the index. The penalty is 0.

    >>> FiniteScalar((3, 3)).vectors(torch.tensor([[0], [5]])).tolist()
    [[-1.0, -1.0], [1.0, 0.0]]
    """

    _levels: Tensor
    _basis: Tensor

    def __init__(self, levels: Sequence[int] = (8, 5, 5, 5)) -> None:
        super().__init__()
        if not levels or min(levels) < 3:
            raise ConfigError(f"levels must be at least 3 a dimension, got {tuple(levels)}")
        self.levels, self.codebook_sizes = tuple(levels), (math.prod(levels),)
        self.dim = self.output_dim = len(levels)
        basis = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("_levels", torch.tensor(levels), persistent=False)
        self.register_buffer("_basis", torch.tensor(basis), persistent=False)

    def forward(self, frames: Float[Tensor, "n dim"], seeds: FrameSeeds) -> FrameCodes:
        bounded = self._bounded(frames)
        grid = bounded.round()
        values = straight_through(bounded, grid) / self._half
        return FrameCodes(values, self._index(grid), frames.new_zeros(()))

    @torch.no_grad()
    def ids(self, frames: Float[Tensor, "n dim"]) -> Int[Tensor, "n codebook"]:
        return self._index(self._bounded(frames).round())

    def vectors(self, ids: Int[Tensor, "n codebook"]) -> Float[Tensor, "n dim"]:
        return (ids // self._basis % self._levels - self._half) / self._half

    @property
    def _half(self) -> Tensor:
        return self._levels // 2

    def _bounded(self, frames: Tensor, eps: float = 1e-3) -> Tensor:
        """Into (-L/2, L/2), so that rounding gives L points; an even L is shifted by half a step (appendix A.1)."""
        half = (self._levels - 1) * (1 + eps) / 2
        offset = torch.where(self._levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(frames + torch.atanh(offset / half)) * half - offset

    def _index(self, grid: Tensor) -> Tensor:
        return ((grid.long() + self._half) * self._basis).sum(dim=1, keepdim=True)
