"""Which items form which batch, and in which order batches come.

A plan is made at once by sorting, a pure function of (seed, durations), in about half a second for a million items, so that
going on in the middle of an epoch means making the plan again and jumping to a place in it. `plan_batches` forms batches;
`deal` puts them into an order in which ranks that work at the same time get batches of similar durations.
"""

from dataclasses import dataclass

import numpy as np
import torch

from sonorant.core.config import at_least
from sonorant.core.seed import derive, integers
from sonorant.data.shards import random_order

__all__ = ["BatchPlan", "Budget", "deal", "padding_share", "plan_batches", "plan_in_order"]

_POOL_BATCHES = 8
"""Batches in a pool that is sorted by duration: more pads less and mixes less."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What one batch may hold. All limits include the padding: items × longest item."""

    max_seconds: float
    """Seconds of audio."""
    max_items: int | None = None
    max_tokens: int | None = None
    """Tokens of text, where token counts are given."""
    quadratic_seconds: float | None = None
    """Where set, an item of d seconds counts d + d²/quadratic_seconds seconds, as attention's cost grows; 15 to 40."""

    def __post_init__(self) -> None:
        for name in ("max_seconds", "max_items", "max_tokens", "quadratic_seconds"):
            value = getattr(self, name)
            if value is not None:
                at_least(name, value, 1 if name in ("max_items", "max_tokens") else 1e-3)

    def load(self, durations: np.ndarray, tokens: np.ndarray | None = None) -> np.ndarray:
        """Share of the whole budget that an item takes; a batch fits where items × largest load ≤ 1.

        One number serves for all limits, because n·max(a) ≤ A and n·max(b) ≤ B just when n·max(max(a/A, b/B)) ≤ 1.
        """
        seconds = np.asarray(durations, dtype=np.float64)
        if self.quadratic_seconds is not None:
            seconds = seconds + seconds**2 / self.quadratic_seconds
        load = seconds / self.max_seconds
        if self.max_items is not None:
            load = np.maximum(load, 1 / self.max_items)
        if self.max_tokens is not None and tokens is not None:
            load = np.maximum(load, np.asarray(tokens) / self.max_tokens)
        return load


@dataclass(frozen=True)
class BatchPlan:
    """Batches as slices of one array.

    >>> plan = BatchPlan(np.array([2, 0, 1]), np.array([1, 3]))
    >>> len(plan), plan[1].tolist()
    (2, [0, 1])
    """

    order: np.ndarray
    """Indices of items, batch after batch."""
    ends: np.ndarray
    """For each batch the place in `order` behind its last item."""

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, batch: int) -> np.ndarray:
        start = self.ends[batch - 1] if batch else 0
        return self.order[start : self.ends[batch]]

    def sizes(self) -> np.ndarray:
        """Items of each batch."""
        return np.diff(self.ends, prepend=0)

    def largest(self, values: np.ndarray) -> np.ndarray:
        """For each batch the largest of its items' values, such as durations."""
        if not len(self):
            return np.zeros(0)
        return np.maximum.reduceat(np.asarray(values)[self.order], self.ends - self.sizes())

    def arranged(self, batches: np.ndarray) -> "BatchPlan":
        """The same batches in another order."""
        sizes = self.sizes()[batches]
        ends = np.cumsum(sizes)
        # Item i of new batch b stands at (start of the old batch) + i.
        first = np.repeat((self.ends - self.sizes())[batches] - (ends - sizes), sizes)
        return BatchPlan(self.order[first + np.arange(len(first))], ends)


def padding_share(plan: BatchPlan, durations: np.ndarray) -> float:
    """Padding's share of all that is computed: 1 - (seconds of audio) / (items × longest item, over all batches)."""
    padded = float((plan.sizes() * plan.largest(durations)).sum())
    return 1 - float(np.asarray(durations)[plan.order].sum()) / padded if padded else 0.0


def plan_in_order(load: np.ndarray, order: np.ndarray | None = None) -> BatchPlan:
    """Batches of neighbours: each holds as many items as fit. An item larger than the budget gets a batch of its own.

    >>> plan_in_order(np.array([0.5, 0.5, 0.25, 0.25, 1.5])).ends.tolist()
    [2, 4, 5]
    """
    order = np.arange(len(load)) if order is None else order
    ends, start, largest = [], 0, 0.0
    for index, size in enumerate(np.asarray(load)[order].tolist()):
        largest = max(largest, size)
        # The tolerance is for items that fill the budget exactly up to rounding.
        if (index - start + 1) * largest > 1 + 1e-9 and index > start:
            ends.append(index)
            start, largest = index, size
    if len(order):
        ends.append(len(order))
    return BatchPlan(order, np.array(ends, dtype=np.int64))


def plan_batches(durations: np.ndarray, load: np.ndarray, *, num_buckets: int, seed: int) -> BatchPlan:
    """Batches of items of similar durations, with members that differ between seeds.

    Items fall into buckets that hold equal sums of seconds. Inside a bucket they are shuffled, dealt into pools of some
    batches each, and every pool is sorted, one upwards and the next downwards, so that the whole is one sequence without
    jumps, from short to long, which is then cut wherever the budget is full: only the last batch can be left incomplete,
    not one in each bucket. A corpus of few batches gets fewer buckets, so that there is something left to shuffle.

    Args:
        durations: seconds of each item.
        load: share of a batch's budget that each item takes (`Budget.load`); at most 1.
        num_buckets: at most so many.
        seed: for this epoch.
    """
    durations = np.asarray(durations, dtype=np.float64)
    buckets = min(num_buckets, max(1, int(load.sum()) // 3))
    order = random_order(len(durations), seed)
    bucket = _buckets(durations, buckets)[order]
    order = order[np.argsort(bucket, kind="stable")]
    bucket = np.sort(bucket)
    pool, upwards = _pools(bucket, load[order])
    # One key sorts by pool and, inside it, by duration up or down; ties stay in their random order.
    longest = float(durations.max(initial=0.0)) + 1.0
    size = durations[order] / (2 * longest)
    order = order[np.argsort(pool + np.where(upwards, size, 0.5 - size), kind="stable")]
    return plan_in_order(load, order)


def _buckets(durations: np.ndarray, num_buckets: int) -> np.ndarray:
    """Bucket of each item; borders are durations that split the sum of seconds into equal parts."""
    if num_buckets <= 1 or not len(durations):
        return np.zeros(len(durations), dtype=np.int16)
    ordered = np.sort(durations)
    total = np.cumsum(ordered)
    cuts = np.searchsorted(total, total[-1] * np.arange(1, num_buckets) / num_buckets)
    borders = np.unique(ordered[np.minimum(cuts, len(ordered) - 1)])
    return np.searchsorted(borders, durations, side="right").astype(np.int16)


def _pools(bucket: np.ndarray, load: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For items grouped by bucket: the pool of each, counted over all buckets, and whether the pool is sorted upwards."""
    _, starts, counts = np.unique(bucket, return_index=True, return_counts=True)
    batches = np.add.reduceat(load, starts) if len(load) else np.zeros(0)
    # About _POOL_BATCHES batches a pool, yet at least three pools where a bucket has three batches.
    pools = np.maximum(np.maximum(1, np.round(batches / _POOL_BATCHES)), np.minimum(3, batches.astype(int))).astype(int)
    which = np.repeat(np.arange(len(starts)), counts)
    pool = (np.arange(len(bucket)) - starts[which]) * pools[which] // counts[which]
    # The last pool of a bucket runs upwards, towards the next bucket's longer items.
    return pool + (np.cumsum(pools) - pools)[which], (pools[which] - 1 - pool) % 2 == 0


def deal(
    plan: BatchPlan, durations: np.ndarray, *, ranks: int, phase: int = 0, seed: int, worst_first: bool = False
) -> BatchPlan:
    """Puts the batches of a duration-ordered plan into the order of training.

    Each `ranks` batches that follow each other in the result (a round: one batch for every rank) are neighbours in
    duration, so that no rank waits long for another; the order of the rounds is random.

    Args:
        plan: from `plan_batches`.
        durations: seconds of each item.
        ranks: batches in a round.
        phase: batches by which a round has begun before this plan; the first `ranks - phase` batches complete it.
        seed: for this epoch.
        worst_first: the round with the most padded seconds comes first and the one with the longest item next, so that
            memory which does not suffice shows at the first steps and not after hours.
    """
    count = len(plan)
    if not count:
        return plan
    # From long to short when the worst must be in a full round; else turned by a random step, so that the batches which
    # are left for an incomplete round are other ones each time.
    batches = np.arange(count)[::-1] if worst_first else np.roll(np.arange(count), -(derive(seed, "turn") % count))
    head = min((-phase) % ranks, count)
    num_rounds = (count - head) // ranks
    rounds = batches[head : head + num_rounds * ranks].reshape(num_rounds, ranks)
    tail = batches[head + num_rounds * ranks :]
    rounds = rounds[random_order(num_rounds, derive(seed, "rounds"))]
    if ranks > 1 and num_rounds:
        seats = integers(torch.tensor([seed]), "seats", rounds.size, high=1 << 48)[0].numpy().reshape(rounds.shape)
        rounds = np.take_along_axis(rounds, np.argsort(seats, axis=1, kind="stable"), axis=1)
    if worst_first and num_rounds:
        rounds = _worst_first(rounds, plan, durations)
    return plan.arranged(np.concatenate([batches[:head], rounds.reshape(-1), tail]))


def _worst_first(rounds: np.ndarray, plan: BatchPlan, durations: np.ndarray) -> np.ndarray:
    longest = plan.largest(durations)
    area = plan.sizes() * longest
    # Of equal areas the one with longer items is worse: attention grows with the square of the length.
    key = np.round(area, 6) * 1e6 + longest
    first = [int(np.argmax(key[rounds].max(axis=1))), int(np.argmax(longest[rounds].max(axis=1)))]
    first = list(dict.fromkeys(first))
    return np.concatenate([rounds[first], np.delete(rounds, first, axis=0)])
