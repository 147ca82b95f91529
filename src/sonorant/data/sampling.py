"""Which batch is whose next step: plans (`planning.py`) over the windows of a source (`shards.py`), dealt out to ranks.

Going on in the middle of an epoch jumps to a place in a plan: the cost does not depend on the place.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from sonorant.core.errors import ConfigError, DataError
from sonorant.core.seed import derive
from sonorant.data.planning import BatchPlan, Budget, deal, plan_batches, plan_in_order
from sonorant.data.shards import CutTable, Source, Window

__all__ = ["Excluded", "Packing", "PlannedSampler", "Position", "Schedule", "Step"]

_log = logging.getLogger(__name__)


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
