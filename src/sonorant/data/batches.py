"""Cuts → `Batch`: audio read, resampled and padded, labels attached, in this process or in workers.

`Batches` is what training and evaluation iterate over. Its position counts the batches that the trainer has taken, not
those that workers have prepared, and every batch is a pure function of (seed, corpus, position); so a run can stop anywhere
and go on with another number of workers. Items are read by `reading.py`, labels put together by `collate.py`.
"""

import json
import logging
import multiprocessing
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from sonorant.core.config import at_least, differences, to_plain, within
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.files import atomic_write
from sonorant.core.types import Batch
from sonorant.data.planning import Budget
from sonorant.data.reading import Kept, Loaded, Reader
from sonorant.data.sampling import Packing, Position, Schedule, Step
from sonorant.data.shards import as_source

__all__ = ["BatchConfig", "Batches"]

_log = logging.getLogger(__name__)
_SCHEMA = 1
_ALTERNATIVES = 8
"""Batches that are tried in place of one of which no item can be read."""


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How items are packed into batches and read."""

    max_seconds: float = 120.0
    """Seconds of audio in a batch, padding included: items × longest item."""
    max_items: int | None = None
    """Items in a batch, at most; None for no limit."""
    max_tokens: int | None = None
    """Tokens in a batch, padding included; of the label named by `token_label`."""
    token_label: str = "tokens"
    """Label that `max_tokens` counts."""
    quadratic_seconds: float | None = None
    """Where set, d seconds count as d + d²/quadratic_seconds: 15 to 40 even out the cost of attention."""
    num_buckets: int = 30
    """Groups of similar durations, at most; a corpus of few batches gets fewer."""
    min_item_seconds: float = 0.0
    """Shorter items are left out."""
    max_item_seconds: float | None = None
    """Longer items are left out; None keeps all."""
    sample_rate: int = 16000
    """Hz; audio of another rate is resampled."""
    channels: int | None = None
    """None: one channel, as (batch, time); several are averaged. A number: so many, as (batch, channel, time)."""
    shuffle: bool = True
    """False keeps the corpus's order in training; evaluation never shuffles."""
    by_duration: bool = False
    """In evaluation: longest items first, for the least padding, in place of the corpus's order."""
    drop_last: bool = False
    """In training on several ranks: leave out the last round of an epoch where it lacks batches, in place of filling it by
    repeating batches."""
    num_workers: int = 0
    """Processes that read; 0 reads in this one. Changes no batch."""
    prefetch: int = 2
    """Batches that each worker prepares ahead."""
    start_method: Literal["fork", "spawn", "forkserver"] | None = None
    """Of workers; None takes the system's. Labels must be picklable for all but fork."""
    memory_mb: float = 0.0
    """Decoded audio that each process that reads keeps, in MB: a corpus that fits is decoded once instead of every epoch (an
    hour of 16 kHz takes 230 MB). Changes no batch."""
    max_unreadable_share: float = 0.05
    """In training, items that cannot be read are skipped and listed up to this share; in evaluation none may be."""

    def __post_init__(self) -> None:
        self.packing()
        for name, low in (("num_buckets", 1), ("sample_rate", 1), ("num_workers", 0), ("prefetch", 1)):
            at_least(name, getattr(self, name), low)
        at_least("min_item_seconds", self.min_item_seconds, 0)
        at_least("memory_mb", self.memory_mb, 0)
        within("max_unreadable_share", self.max_unreadable_share, 0, 1)
        if self.channels is not None:
            at_least("channels", self.channels, 1)
        if self.max_item_seconds is not None:
            at_least("max_item_seconds", self.max_item_seconds, self.min_item_seconds)

    def packing(self) -> Packing:
        """The part that decides which items form which batch."""
        budget = Budget(
            max_seconds=self.max_seconds,
            max_items=self.max_items,
            max_tokens=self.max_tokens,
            quadratic_seconds=self.quadratic_seconds,
        )
        same = ("num_buckets", "shuffle", "by_duration", "drop_last", "min_item_seconds", "max_item_seconds")
        return Packing(budget=budget, **{name: getattr(self, name) for name in same})


class Batches:
    """Batches of a corpus: endless over shuffled epochs in training, one pass in a stable order otherwise.

    In the first epoch the batch with the most padded seconds comes first and that with the longest item next, so that
    memory which does not suffice shows at once. Iterating again goes on where training stood; an evaluation starts anew
    unless `load_state_dict` has just put it somewhere.

    Args:
        cuts: a lhotse `CutSet` or list of cuts, a Shar folder, a `ShardedCuts`, or a `mixture` of these.
        config: budgets, reading, workers.
        labels: name → callable that takes a cut and gives its label; see `collate_labels` for the kinds.
        seed: of the run; with the epoch and the item's id it makes `Batch.seeds`.
        train: endless and shuffled.
        rank: of this process; batches are formed over all ranks and dealt out in turn.
        world_size: processes that train together.

    Raises:
        DataError: unreadable audio (in training: more than `max_unreadable_share`), a label that fails, no items left.

    Example::

        batches = Batches(cuts, BatchConfig(max_seconds=200), labels={"tokens": lambda cut: alphabet.encode(text_of(cut))})
        for batch in batches: ...
    """

    def __init__(
        self,
        cuts: Any,
        config: BatchConfig,
        *,
        labels: Mapping[str, Callable[[Any], Any]] | None = None,
        seed: int = 0,
        train: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        labels = dict(labels or {})
        source = as_source(cuts)
        if not train and type(source).__name__ == "Mixture":
            raise ConfigError("a mixture has no end, so it serves training only; evaluate each corpus by itself")
        if config.max_tokens is not None and config.token_label not in labels:
            raise ConfigError(
                f"max_tokens counts the label '{config.token_label}', which is not among {sorted(labels)}"
            )
        self.config, self.train, self.seed = config, train, seed
        count = _TokenCount(labels[config.token_label]) if config.max_tokens is not None else None
        self.schedule = Schedule(
            source, config.packing(), seed=seed, train=train, count_tokens=count, rank=rank, world_size=world_size
        )
        self._reader = Reader(
            source, config.sample_rate, config.channels, labels, seed, train, Kept(config.memory_mb * 1e6)
        )
        self._position = self.schedule.start()
        self._restored = False
        self._read = 0
        self._unreadable: dict[str, str] = {}
        self._num_unreadable = 0
        self._fingerprint: str | None = None

    @property
    def epoch(self) -> int:
        """Epoch of the next batch, from 0."""
        return self._position.epoch

    @property
    def consumed(self) -> int:
        """Batches that this rank has been given."""
        return self._position.step

    @property
    def skipped(self) -> dict[str, str]:
        """Id → reason of items that were left out: outside the limits, or unreadable among those taken so far."""
        return {**self.schedule.excluded.listed, **self._unreadable}

    def write_skipped(self, path: str | Path) -> None:
        """Lists the skipped items as one JSON object a line (`id`, `reason`)."""
        lines = [
            json.dumps({"id": name, "reason": why}, ensure_ascii=False) + "\n" for name, why in self.skipped.items()
        ]
        with atomic_write(path) as file:
            file.write("".join(lines).encode())

    def num_steps(self) -> int:
        """Batches from here to the end of the epoch; for shards this reads all their manifests."""
        return self.schedule.num_steps(self._position)

    # --- position ---

    def state_dict(self) -> dict[str, Any]:
        """Where the trainer stands, in plain values; the same on every rank but for the unreadable items.

        A batch counts as taken once it has been handed out.
        """
        return {
            "schema": _SCHEMA,
            "position": asdict(self._position),
            "read": self._read,
            "num_unreadable": self._num_unreadable,
            "unreadable": dict(self._unreadable),
            "of": self._identity(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to a position; the number of workers may be another one.

        Raises:
            ConfigError: the corpus, seed, packing or world size are not those of the state, so its batches would not
                be those that the run had.
        """
        if state.get("schema") != _SCHEMA:
            raise ConfigError(f"batches' state has schema {state.get('schema')!r}, expected {_SCHEMA}")
        changed = differences(state["of"], self._identity())
        if changed:
            rows = "; ".join(f"{name} was {old!r} and is {new!r}" for name, old, new in changed)
            raise ConfigError(
                f"batches cannot go on exactly where they stood: {rows}. Restore these, or start a new run"
            )
        self._position = Position(**state["position"])
        self._read, self._num_unreadable = state["read"], state["num_unreadable"]
        self._unreadable = dict(state["unreadable"])
        self._restored = True

    def _identity(self) -> dict[str, Any]:
        """All that decides which batches come."""
        if self._fingerprint is None:
            self._fingerprint = self.schedule.source.fingerprint()
        own = {"seed": self.seed, "train": self.train, "world_size": self.schedule.world_size}
        return {"corpus": self._fingerprint, **own, "packing": to_plain(self.config.packing())}

    # --- iteration ---

    def __iter__(self) -> Iterator[Batch]:
        if not self.train and not self._restored:
            self._position = self.schedule.start()
        self._restored = False
        steps = self.schedule.steps(self._position)
        pairs = self._in_workers(steps) if self.config.num_workers else ((s, self._reader[s.items()]) for s in steps)
        for step, loaded in pairs:
            batch = self._taken(step, loaded)
            self._position = step.after
            yield batch
        self._position = self.schedule.start()

    def _in_workers(self, steps: Iterator[Step]) -> Iterator[tuple[Step, Loaded]]:
        from torch.utils.data import DataLoader

        ahead: deque[Step] = deque()

        def orders() -> Iterator[tuple[list[Any], list[int]]]:
            for step in steps:
                ahead.append(step)
                yield step.items()

        method = self.config.start_method
        if (method or multiprocessing.get_start_method()) != "fork":
            self._check_picklable()
        loader: Any = DataLoader(
            self._reader,  # type: ignore[arg-type]
            batch_size=None,
            sampler=orders(),  # type: ignore[arg-type]
            num_workers=self.config.num_workers,
            prefetch_factor=self.config.prefetch,
            collate_fn=_as_it_is,
            worker_init_fn=_start_worker,
            multiprocessing_context=method,
            # A generator of its own: the loader would otherwise draw from torch's global one, and runs with and without
            # workers would differ in whatever else draws from that.
            generator=torch.Generator().manual_seed(self.seed % 2**63),
        )
        # Batches come back in the order in which they were asked for.
        for loaded in loader:
            yield ahead.popleft(), loaded

    def _check_picklable(self) -> None:
        for name, label in self._reader.labels.items():
            try:
                pickle.dumps(label)
            except Exception as error:
                raise ConfigError(
                    f"label '{name}' cannot be sent to workers ({error}): make it a function of a module or an object with "
                    "__call__, or use start_method='fork' or num_workers=0"
                ) from error

    def _taken(self, step: Step, loaded: Loaded) -> Batch:
        """Counts what was skipped, and finds another batch where nothing could be read."""
        for further in range(1, _ALTERNATIVES + 2):
            if loaded.failure:
                raise DataError(loaded.failure)
            self._count(loaded)
            if loaded.batch is not None:
                return loaded.batch
            if further > min(_ALTERNATIVES, step.num_alternatives):
                break
            loaded = self._reader[step.items(further)]
        names = "; ".join(f"{name}: {reason}" for name, reason in list(self._unreadable.items())[-3:])
        raise DataError(f"no item of {further} batches in a row can be read ({names})")

    def _count(self, loaded: Loaded) -> None:
        self._read += loaded.num_items
        self._num_unreadable += len(loaded.skipped)
        for name, reason in loaded.skipped.items():
            if name not in self._unreadable:
                _log.warning("item '%s' is skipped: %s", name, reason)
                self._unreadable[name] = reason
        # The first hundred items are forgiven up to five of them, lest one bad file at step 1 ends a run.
        allowed = self.config.max_unreadable_share * max(self._read, 100)
        if self._num_unreadable > allowed:
            names = "; ".join(f"{name}: {reason}" for name, reason in list(self._unreadable.items())[:3])
            share = f"{self._num_unreadable} of {self._read} items could not be read"
            raise DataError(
                f"{share}, more than max_unreadable_share={self.config.max_unreadable_share} allows: {names}"
            )


@dataclass(frozen=True)
class _TokenCount:
    label: Callable[[Any], Any]

    def __call__(self, cut: Any) -> int:
        return len(self.label(cut))


def _as_it_is(value: Any) -> Any:
    return value


def _start_worker(index: int) -> None:
    """One thread a worker, and signals that reach the whole group do not take it from under the trainer.

    Ctrl-C is the trainer's to handle. The first SIGTERM is, too (a scheduler sends it to every process of a job); at the
    second, which a shutdown sends to a worker that hangs, the worker ends.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
