"""Which items form which batch, and which batches form the steps of training.

A plan is made at once by sorting, a pure function of (seed, durations), in about half a second for a million items. Going on
in the middle of an epoch means making the plan again and jumping to a place in it: the cost does not depend on the place.

Read in this order: `plan_batches` forms batches, `deal` puts them into an order in which ranks that work at the same time get
batches of similar durations, and `Schedule` deals out the steps of one rank over the windows of a source (`shards.py`).
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from sonorant.core.config import at_least
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.seed import derive, integers
from sonorant.data.shards import CutTable, Source, Window, random_order

__all__ = [
    "BatchPlan", "Budget", "Excluded", "Packing", "PlannedSampler", "Position", "Schedule", "Step",
    "deal", "padding_share", "plan_batches", "plan_in_order",
]  # fmt: skip

_log = logging.getLogger(__name__)
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


# --- steps ---


@dataclass(frozen=True)
class Position:
    """A place between two steps, the same on every rank. Plain values."""

    cursor: Any
    offset: int = 0
    """Batches of the window's plan that all ranks together have been given."""
    phase: int = 0
    """Batches of a round that the windows before had given when this one began."""
    epoch: int = 0
    step: int = 0
    """Steps since the beginning of training."""


@dataclass
class Excluded:
    """Items that no batch holds."""

    counts: dict[str, int] = field(default_factory=dict)
    """By kind of reason."""
    listed: dict[str, str] = field(default_factory=dict)
    """Id → reason."""

    def add(self, name: str, reason: str, kind: str) -> None:
        if name not in self.listed:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self.listed[name] = reason


@dataclass(frozen=True)
class _Planned:
    window: Window
    plan: BatchPlan


@dataclass(frozen=True)
class Step:
    """What one rank does next."""

    planned: _Planned
    batch: int
    epoch: int
    """The epoch that the batch belongs to."""
    after: Position
    """Where training stands once this step's batch has been taken."""

    def items(self, further: int = 0) -> tuple[list[Any], list[int]]:
        """References and passes of the batch, or of the one that stands `further` behind it in the plan."""
        indices = self.planned.plan[(self.batch + further) % len(self.planned.plan)]
        window = self.planned.window
        return window.chosen(indices), window.passes[indices].tolist()

    @property
    def num_alternatives(self) -> int:
        """Other batches of the same plan."""
        return len(self.planned.plan) - 1


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How items become batches and batches steps."""

    budget: Budget
    """Of one batch."""
    num_buckets: int = 30
    shuffle: bool = True
    """False keeps the corpus's order also in training."""
    by_duration: bool = False
    """In one pass: longest items first, in place of the corpus's order."""
    drop_last: bool = False
    """Leave an epoch's last round out where it lacks batches, in place of filling it."""
    min_item_seconds: float = 0.0
    max_item_seconds: float | None = None


class Schedule:
    """The steps of a rank.

    Batches are formed over the whole window and dealt out in turn, so each item goes to one rank, and all ranks make the
    same number of steps in training. At the end of an epoch a round may lack batches: training fills it by repeating
    batches of the last window, or with `drop_last` leaves it out; evaluation hands each batch out once, so that some ranks
    get one batch fewer.

    Args:
        source: the corpus.
        packing: how batches are made.
        seed: of the run; each window's plan derives its own.
        train: endless and shuffled, else one pass.
        count_tokens: cut → number of tokens, where the budget limits them.
        rank: of this process, in [0, world_size).
        world_size: processes that train together.
    """

    def __init__(
        self,
        source: Source,
        packing: Packing,
        *,
        seed: int = 0,
        train: bool = True,
        count_tokens: Callable[[Any], int] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank must lie in [0, world_size), got rank={rank} and world_size={world_size}")
        self.source, self.packing, self.seed, self.train = source, packing, seed, train
        self.count_tokens, self.rank, self.world_size = count_tokens, rank, world_size
        self.excluded = Excluded()
        self._recent: dict[str, _Planned] = {}
        self._counted: np.ndarray | None = None

    def start(self) -> Position:
        return Position(self.source.cursor_of(0))

    def steps(self, position: Position) -> Iterator[Step]:
        """This rank's steps from a position on.

        Raises:
            DataError: an epoch that has no step (no items, or none within the limits).
        """
        cursor, offset, phase = position.cursor, position.offset, position.phase
        epoch, step = position.epoch, position.step
        taken: list[tuple[_Planned, int]] = []
        barren, steps_before = 0, step
        while True:
            planned = self._planned(cursor, phase)
            for batch in range(offset, len(planned.plan)):
                taken.append((planned, batch))
                if len(taken) == self.world_size:
                    step += 1
                    after = Position(cursor, batch + 1, phase, epoch, step)
                    yield Step(*taken[self.rank], epoch, self._settled(after, planned))
                    taken = []
            cursor, offset = planned.window.next, 0
            phase = (phase + len(planned.plan)) % self.world_size
            if not planned.window.last:
                continue
            closing = self._closing(planned, taken)
            if closing is not None:
                step += 1
                yield Step(*closing, epoch, Position(cursor, 0, 0, epoch + 1, step))
            if not self.train:
                return
            barren = barren + 1 if step == steps_before else 0
            if barren > 1:
                raise DataError(self._barren())
            taken, phase, epoch, steps_before = [], 0, epoch + 1, step

    def _settled(self, after: Position, planned: _Planned) -> Position:
        """`after`, moved to the beginning of the next epoch where this one has nothing left to give."""
        left = len(planned.plan) - after.offset
        unused = left < self.world_size and self.train and self.packing.drop_last
        if planned.window.last and (left == 0 or unused):
            return Position(planned.window.next, 0, 0, after.epoch + 1, after.step)
        return after

    def _closing(self, planned: _Planned, taken: list[tuple[_Planned, int]]) -> tuple[_Planned, int] | None:
        """This rank's batch of an epoch's last, incomplete round."""
        if not taken:
            return None
        if not self.train:
            return taken[self.rank] if self.rank < len(taken) else None
        if self.packing.drop_last or not len(planned.plan):
            return None
        filled = taken + [(planned, k % len(planned.plan)) for k in range(self.world_size - len(taken))]
        return filled[self.rank]

    def _barren(self) -> str:
        reasons = ", ".join(f"{count} items {kind}" for kind, count in self.excluded.counts.items())
        hint = ", fewer ranks, or drop_last=False" if self.packing.drop_last else ""
        return f"an epoch gives no batch ({reasons or 'the corpus is empty'}): use wider limits, another corpus{hint}"

    def num_steps(self, position: Position | None = None) -> int:
        """Steps of this rank from a position to the end of its epoch; reads the durations of all windows in between."""
        return sum(1 for _ in self.epoch_steps(position or self.start()))

    def epoch_steps(self, position: Position) -> Iterator[Step]:
        """This rank's steps from a position to the end of its epoch."""
        for step in self.steps(position):
            if step.epoch != position.epoch:
                return
            yield step
            if step.after.epoch != position.epoch:
                return

    def _planned(self, cursor: Any, phase: int) -> _Planned:
        """The plan of a window; the last two are kept."""
        key = json.dumps([cursor, phase])
        if key not in self._recent:
            while len(self._recent) > 1:
                del self._recent[next(iter(self._recent))]
            self._recent[key] = self._plan(cursor, phase)
        return self._recent[key]

    def _plan(self, cursor: Any, phase: int) -> _Planned:
        window = self.source.window(cursor, derive(self.seed, "source"), self.packing.shuffle and self.train)
        tokens = self._tokens(window)
        load = self.packing.budget.load(window.durations, tokens)
        kept = self._kept(window, load)
        durations, load = window.durations[kept], load[kept]
        seed = derive(self.seed, "plan", json.dumps(cursor))
        if self.packing.shuffle and self.train:
            plan = plan_batches(durations, load, num_buckets=self.packing.num_buckets, seed=seed)
            first = cursor == self.source.cursor_of(0)
            plan = deal(plan, durations, ranks=self.world_size, phase=phase, seed=seed, worst_first=first)
        else:
            order = np.argsort(-durations, kind="stable") if self.packing.by_duration else None
            plan = plan_in_order(load, order)
        return _Planned(window, replace(plan, order=kept[plan.order]))

    def _tokens(self, window: Window) -> np.ndarray | None:
        """Tokens of each item, where the budget limits them; counted once for a corpus in memory."""
        if self.packing.budget.max_tokens is None or self.count_tokens is None:
            return None
        fixed = isinstance(self.source, CutTable)
        if fixed and self._counted is not None:
            return self._counted
        refs = window.chosen(np.arange(len(window.durations)))
        counted = np.array([self.count_tokens(self.source.cut(ref)) for ref in refs], dtype=np.int64)
        self._counted = counted if fixed else None
        return counted

    def _kept(self, window: Window, load: np.ndarray) -> np.ndarray:
        """Indices of the items that are used; the others are counted and listed."""
        durations, limits = window.durations, self.packing
        short = durations < limits.min_item_seconds
        long = durations > (np.inf if limits.max_item_seconds is None else limits.max_item_seconds)
        # In evaluation every item counts: one that is larger than the budget gets a batch of its own.
        large = (load > 1 + 1e-9) & self.train
        for kind, found in (("too short", short), ("too long", long & ~short), ("over budget", large & ~long & ~short)):
            outside = np.flatnonzero(found)
            for ref, seconds in zip(window.chosen(outside), durations[outside].tolist()):
                self.excluded.add(self.source.cut(ref).id, f"{kind}: {seconds:.3f} s", kind)
        kept = np.flatnonzero(~(short | long | large))
        if len(kept) < len(durations):
            _log.info(
                "%d of %d items lie outside the limits and are left out", len(durations) - len(kept), len(durations)
            )
        return kept


class PlannedSampler:
    """The schedule for lhotse's own datasets: yields a `CutSet` for each batch, with the methods of lhotse's samplers.

    Where `DynamicBucketingSampler` finds its place again by drawing all batches before it, this one jumps there.

    Args:
        schedule: with `train=True`; an epoch here is one pass of it."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._position = schedule.start()

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch by its number; does nothing inside of that epoch."""
        if epoch != self._position.epoch:
            self._position = Position(self.schedule.source.cursor_of(epoch), epoch=epoch)

    def __iter__(self) -> Iterator[Any]:
        from lhotse import CutSet

        for step in self.schedule.epoch_steps(self._position):
            refs, _ = step.items()
            self._position = step.after
            yield CutSet.from_cuts(self.schedule.source.cut(ref) for ref in refs)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self._position)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._position = Position(**state)
