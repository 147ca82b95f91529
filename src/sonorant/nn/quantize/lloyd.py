"""One Lloyd pass: what is summed for each cluster, and where the centres go; also over several processes.

Sums are float32 over a stretch of the stream and float64 over all of it. The inertia follows from them exactly,
Σ|x|² - 2 Σ c·s + Σ n|c|², whatever the precision of the search was.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.core.seed import derive
from sonorant.nn.quantize.stream import Reservoir

__all__ = ["Statistics", "cluster_sums", "is_distributed", "share_sample", "sum_over_processes"]

_POOL = 64
"""Frames that wait to replace dead centres."""
_STRETCH = 1 << 16
"""Frames that are summed in float32."""


def is_distributed() -> bool:
    """Whether several processes work together."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def sum_over_processes(*tensors: Tensor) -> None:
    """Adds tensors up over all processes, in place; without a process group they stay."""
    if is_distributed():
        for tensor in tensors:
            torch.distributed.all_reduce(tensor)


def finite_rows(values: Float[Tensor, "n dim"], ids: Int[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """The frames in which every number is finite, with their ids: anything else would stay in a moving average for good."""
    finite = values.isfinite().all(dim=1)
    return (values, ids) if bool(finite.all()) else (values[finite], ids[finite])


def cluster_sums(values: Float[Tensor, "n dim"], ids: Int[Tensor, " n"], sums: Float[Tensor, "cluster dim"]) -> None:
    """Adds each frame to the sum of its cluster, in place, the same on every run.

    On a CPU rows are added one after the other, at the speed of memory. Elsewhere that would be atomic additions in any
    order, so the sum is a product with a matrix of zeros and ones.
    """
    if values.device.type == "cpu":
        sums.index_add_(0, ids, values)
    else:
        members = torch.nn.functional.one_hot(ids, len(sums)).to(values.dtype)
        sums.addmm_(members.T, values)


class Statistics:
    """Sums over one pass.

    Args:
        centers: those that frames were compared with.
        names: of the pass, from which its draws come.
    """

    def __init__(self, centers: Float[Tensor, "cluster dim"], names: tuple[int, str, int]) -> None:
        self._centers, self.frames = centers, 0
        self._stretch, self._in_stretch = torch.zeros_like(centers), 0
        self._sums = torch.zeros_like(centers, dtype=torch.float64)
        self._counts = torch.zeros(len(centers), dtype=torch.float64, device=centers.device)
        self._energy = torch.zeros((), dtype=torch.float64, device=centers.device)
        rank = torch.distributed.get_rank() if is_distributed() else 0
        seed, stage, number = names
        self._generator = torch.Generator().manual_seed(derive(seed, "pool", stage, number, rank))
        self._keys = torch.empty(0, dtype=torch.float64, device=centers.device)
        self._pool = centers[:0]

    def add(self, values: Float[Tensor, "n dim"], ids: Int[Tensor, " n"], score: Float[Tensor, " n"]) -> None:
        """Takes a block with what a search for centred frames said of it."""
        cluster_sums(values, ids, self._stretch)
        self._counts += torch.bincount(ids, minlength=len(self._centers))
        flat = values.reshape(-1)
        self._energy += torch.dot(flat, flat)
        self._offer(values, score)
        self.frames += len(values)
        self._in_stretch += len(values)
        if self._in_stretch >= _STRETCH:
            self._flush()

    def _flush(self) -> None:
        self._sums += self._stretch
        self._stretch.zero_()
        self._in_stretch = 0

    def _offer(self, values: Tensor, score: Tensor) -> None:
        """Keeps a sample in which a frame's chance is proportional to its squared distance, as k-means++ draws.

        A few frames of each block take part, so that this costs nothing.
        """
        draws = torch.rand(2, min(_POOL, len(values)), dtype=torch.float64, generator=self._generator)
        rows = (draws[0] * len(values)).long().to(values.device)
        values, score = values[rows], score[rows]
        away = (values.square().sum(dim=1) - 2 * score).clamp(min=0).double()
        draws = draws[1].to(values.device)
        keys = -draws.log() / away  # the least keys stay; a frame that is its own centre never does
        if len(self._keys) == _POOL:
            near = keys < self._keys.max()
            keys, values = keys[near], values[near]
        keys, rows = torch.cat([self._keys, keys]), torch.cat([self._pool, values])
        keys, order = keys.topk(min(_POOL, len(keys)), largest=False)
        self._keys, self._pool = keys, rows[order]

    def close(self, reduce: bool) -> None:
        """The pass is over; `reduce`: add up over all processes."""
        self._flush()
        if not reduce or not is_distributed():
            return
        frames = torch.tensor(self.frames, dtype=torch.float64, device=self._sums.device)
        sum_over_processes(self._sums, self._counts, self._energy, frames)
        self.frames = int(frames)
        keys, pool = self._keys.new_full((_POOL,), float("inf")), self._pool.new_zeros(_POOL, self._pool.shape[1])
        keys[: len(self._keys)], pool[: len(self._pool)] = self._keys, self._pool
        keys, pool = _gathered(keys), _gathered(pool)
        self._keys, order = keys.topk(_POOL, largest=False)
        self._pool = pool[order]

    @property
    def inertia(self) -> float:
        """Mean squared distance of the frames to the centres that they were given to."""
        centers = self._centers.double()
        cross, own = (centers * self._sums).sum(), (self._counts * centers.square().sum(dim=1)).sum()
        return max(0.0, float(self._energy - 2 * cross + own)) / max(self.frames, 1)

    def centers(self, factor: float) -> tuple[Float[Tensor, "cluster dim"], int]:
        """The centres moved by `factor` times the way to the means of their frames, and how many dead ones were revived.

        A centre without frames is put on a frame that was drawn with a chance proportional to its squared distance.
        """
        means = self._sums / self._counts.clamp(min=1)[:, None]
        old = self._centers.double()
        moved = torch.where(self._counts[:, None] > 0, old + factor * (means - old), old).to(self._centers.dtype)
        dead = (self._counts == 0).nonzero()[:, 0]
        pool = self._pool[self._keys.isfinite()]
        revived = min(len(dead), len(pool))
        moved[dead[:revived]] = pool[:revived]
        return moved, revived


def share_sample(reservoir: Reservoir) -> tuple[Float[Tensor, "n dim"], int, bool]:
    """The sample of all processes, how many frames were seen, and whether the sample holds them all."""
    if not is_distributed():
        return reservoir.sample(), reservoir.seen, reservoir.whole
    sample, size = reservoir.sample(), reservoir.size
    share = max(1, size // torch.distributed.get_world_size())
    kept = sample.new_zeros(share, sample.shape[1])
    kept[: len(sample[:share])] = sample[:share]
    counts = _gathered(torch.tensor([min(len(sample), share)], device=sample.device))
    seen = _gathered(torch.tensor([reservoir.seen], device=sample.device))
    parts = _gathered(kept).view(-1, share, sample.shape[1])
    rows = torch.cat([part[: int(count)] for part, count in zip(parts, counts)])
    # Mixed, so that each beginning of it is a sample too; the draw is the same in each process.
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(len(rows)))
    return rows[order.to(rows.device)], int(seen.sum()), bool((seen <= share).all())


def _gathered(tensor: Tensor) -> Tensor:
    """The tensors of all processes, one after the other; all have the same size."""
    parts = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
