"""Greedy k-means++ (Arthur and Vassilvitskii, 2007, section 4): centres far from one another, drawn from a sample.

Each new centre is the best of a few frames that are drawn with probability proportional to the squared distance from the
centres so far. All distances within the sample come from one matrix product where they fit, so a round reads a few rows.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.core.errors import DataError
from sonorant.core.seed import derive

__all__ = ["seed_centers"]

_MOST_PAIRS = 1 << 26
"""Squared distances that are held at once: 256 MB."""


class _Distances:
    """Squared distances from some frames of the sample to all of them."""

    def __init__(self, sample: Tensor) -> None:
        self.sample, self.squares = sample, sample.square().sum(dim=1)
        # What cancels to less than this share of the squares is rounding: those frames are the same.
        self.least = 1e-6 * float(self.squares.mean())
        self.table = self._rows(sample, self.squares) if len(sample) ** 2 <= _MOST_PAIRS else None

    def _rows(self, frames: Tensor, squares: Tensor) -> Tensor:
        rows = torch.addmm(self.squares, frames, self.sample.T, alpha=-2).add_(squares[:, None])
        return rows.masked_fill_(rows < self.least, 0)

    def __call__(self, ids: Tensor) -> Tensor:
        return self.table[ids] if self.table is not None else self._rows(self.sample[ids], self.squares[ids])


def seed_centers(
    sample: Float[Tensor, "n dim"], num_clusters: int, seed: int, trials: int | None = None
) -> Float[Tensor, "cluster dim"]:
    """Draws `num_clusters` frames of the sample as first centres.

    Args:
        sample: frames, best centred; more than `num_clusters` of them.
        num_clusters: how many.
        seed: of the draws.
        trials: frames tried for each centre; by default 2 + ln(num_clusters), as scikit-learn does.

    Raises:
        DataError: the sample has fewer distinct frames than that.
    """
    trials = trials or 2 + int(math.log(num_clusters))
    generator = torch.Generator().manual_seed(derive(seed, "seeding"))
    distances = _Distances(sample)
    chosen = [int(torch.randint(len(sample), (1,), generator=generator))]
    nearest = distances(torch.tensor(chosen, device=sample.device))[0]
    while len(chosen) < num_clusters:
        sums = nearest.double().cumsum(dim=0)
        if not float(sums[-1]) > 0:
            raise DataError(
                f"num_clusters={num_clusters}, but the {len(sample)} frames that were looked at hold only {len(chosen)} "
                "distinct ones; take fewer clusters, or leave out silence that is exactly zero"
            )
        tried = _draw(sums, trials, generator)
        candidates = torch.minimum(distances(tried), nearest)
        best = int(candidates.sum(dim=1).argmin())
        chosen.append(int(tried[best]))
        nearest = candidates[best]
    return sample[torch.tensor(chosen, device=sample.device)].clone()


def _draw(sums: Tensor, count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
    """Places drawn in proportion to the steps of a cumulative sum; a step of nothing is never drawn."""
    draws = torch.rand(count, generator=generator, dtype=torch.float64).to(sums.device) * sums[-1]
    return torch.searchsorted(sums, draws, right=True).clamp(max=int(torch.searchsorted(sums, sums[-1])))
