"""Cuts → `Batch`: audio read, resampled and padded, labels attached, in this process or in workers.

`Batches` is what training and evaluation iterate over. Its position counts the batches that the trainer has taken, not
those that workers have prepared, and every batch is a pure function of (seed, corpus, position); so a run can stop anywhere
and go on with another number of workers. Read `BatchConfig`, then `Batches`; `_Reader` is what runs in workers.
"""

import json
import logging
import multiprocessing
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sonorant.audio.resample import resample_soxr
from sonorant.core.config import at_least, differences, to_plain, within
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.files import atomic_write
from sonorant.core.lengths import pad
from sonorant.core.seed import derive
from sonorant.core.types import Batch, Segment, Segments
from sonorant.data.sampling import Budget, Packing, Position, Schedule, Step
from sonorant.data.shards import as_source

__all__ = ["BatchConfig", "Batches", "collate_labels", "read_cut"]

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
        self._reader = _Reader(source, config, labels, seed, train, _Kept(config.memory_mb * 1e6))
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

    def _in_workers(self, steps: Iterator[Step]) -> Iterator[tuple[Step, "_Loaded"]]:
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

    def _taken(self, step: Step, loaded: "_Loaded") -> Batch:
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

    def _count(self, loaded: "_Loaded") -> None:
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


# --- what runs in workers ---


@dataclass
class _Loaded:
    """What a worker sends back."""

    batch: Batch | None = None
    num_items: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class _TokenCount:
    label: Callable[[Any], Any]

    def __call__(self, cut: Any) -> int:
        return len(self.label(cut))


class _Kept:
    """Decoded audio by item, up to so many bytes. What came first stays: over epochs every item is asked for equally often,
    and throwing out the one that was used longest ago would throw out the one that is needed next."""

    def __init__(self, room: float) -> None:
        self.room, self._left, self._audio = room, room, dict[str, Tensor]()

    def __reduce__(self) -> tuple[type, tuple[float]]:
        # To other processes it travels empty.
        return _Kept, (self.room,)

    def get(self, ref: Any, read: Callable[[], Tensor]) -> Tensor:
        """The item's audio; whoever gets it must not change it in place."""
        key = str(ref)
        if key in self._audio:
            return self._audio[key]
        audio = read()
        size = audio.numel() * audio.element_size()
        if size <= self._left:
            self._audio[key], self._left = audio, self._left - size
        return audio


@dataclass(frozen=True)
class _Reader:
    """References of items → batch. A map-style data set whose index is (references, passes)."""

    source: Any
    config: BatchConfig
    labels: Mapping[str, Callable[[Any], Any]]
    seed: int
    train: bool
    kept: _Kept

    def __getitem__(self, order: tuple[Sequence[Any], Sequence[int]]) -> _Loaded:
        """Errors come back as text, so that they name the item also across processes."""
        try:
            return self._load(*order)
        except DataError as error:
            return _Loaded(failure=str(error))
        except Exception:
            return _Loaded(failure=f"reading a batch failed:\n{traceback.format_exc()}")

    def _load(self, refs: Sequence[Any], passes: Sequence[int]) -> _Loaded:
        loaded = _Loaded(num_items=len(refs))
        cuts, audio, seeds = [], [], []
        for ref, done in zip(refs, passes):
            cut = self.source.cut(ref)
            try:
                signal_ = self.kept.get(ref, partial(self._audio, cut, ref))
            except ConfigError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0][:500]
                if not self.train:
                    raise DataError(f"item '{cut.id}' cannot be read: {reason}") from error
                loaded.skipped[cut.id] = reason
                continue
            cuts.append(cut)
            audio.append(signal_)
            # One pass over everything has no epochs; a corpus in a mixture has its own.
            seeds.append(derive(self.seed, done if self.train else 0, cut.id))
        if cuts:
            loaded.batch = self._batch(cuts, audio, seeds)
        return loaded

    def _audio(self, cut: Any, ref: Any) -> Tensor:
        return read_cut(self.source.filled(cut, ref), self.config.sample_rate, self.config.channels)

    def _batch(self, cuts: list[Any], audio: list[Tensor], seeds: list[int]) -> Batch:
        # pad() wants time first; items are (time) or (channel, time).
        multichannel = audio[0].dim() == 2
        waveform, lengths = pad([item.t() if multichannel else item for item in audio])
        waveform = waveform.transpose(1, 2).contiguous() if multichannel else waveform
        labels: dict[str, Any] = {}
        for name, label in self.labels.items():
            labels.update(collate_labels(name, [_labelled(name, label, cut) for cut in cuts], [cut.id for cut in cuts]))
        ids = tuple(cut.id for cut in cuts)
        return Batch(waveform, lengths, self.config.sample_rate, labels, ids, torch.tensor(seeds, dtype=torch.int64))


def _labelled(name: str, label: Callable[[Any], Any], cut: Any) -> Any:
    try:
        return label(cut)
    except Exception as error:
        raise DataError(f"label '{name}' of item '{cut.id}' failed: {type(error).__name__}: {error}") from error


def read_cut(cut: Any, sample_rate: int, channels: int | None = None) -> Tensor:
    """A cut's audio as float32 in [-1, 1], (time) or, with `channels`, (channel, time).

    Args:
        cut: a lhotse cut.
        sample_rate: Hz of what comes back; another rate is resampled by soxr.
        channels: see `BatchConfig.channels`.

    Raises:
        DataError: empty audio, samples that are not finite, audio that is the output of a command.
        ConfigError: another number of channels.
    """
    # Here, because lhotse takes a second to import and whoever reads cuts has imported it.
    from sonorant.data.corpora.corpus import load_audio

    samples = load_audio(cut)
    if channels is None:
        samples = samples.mean(axis=0, keepdims=True) if len(samples) > 1 else samples
    elif len(samples) != channels:
        raise ConfigError(
            f"item '{cut.id}' has {len(samples)} channels, expected channels={channels}; None averages them"
        )
    if not samples.shape[1] or not np.isfinite(samples).all():
        raise DataError(f"item '{cut.id}' is empty or holds samples that are not finite")
    if cut.sampling_rate != sample_rate:
        samples = resample_soxr(samples.T, cut.sampling_rate, sample_rate).T
    signal_ = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
    return signal_ if channels is not None else signal_[0]


def collate_labels(name: str, values: Sequence[Any], ids: Sequence[str]) -> dict[str, Any]:
    """One label of all items of a batch.

    Integers or floats become a tensor (batch); lists of integers, arrays and tensors are padded with zeros on axis 1 and
    their lengths stand beside them as `<name>_lengths`; `Segments` of one item, or non-empty lists of `Segment`, become
    `Segments`; anything else (text, speakers) stays a list.

    >>> sorted(collate_labels("tokens", [[1, 2], [3]], ["a", "b"])["tokens"].tolist())
    [[1, 2], [3, 0]]
    """
    kinds = {_kind(value) for value in values}
    if "empty" in kinds:
        # An empty list is one of whatever the others are.
        kinds = (kinds - {"empty"}) or {"array"}
    if len(kinds) > 1:
        rows = ", ".join(f"'{i}': {_kind(value)}" for i, value in list(zip(ids, values))[:4])
        raise DataError(f"label '{name}' must be of one kind in all items, got {rows}")
    kind = kinds.pop()
    if kind == "segments":
        return {name: Segments(tuple(_segments(value) for value in values))}
    if kind == "number":
        whole = all(isinstance(value, int | np.integer) for value in values)
        return {name: torch.tensor(values, dtype=torch.int64 if whole else torch.float32)}
    if kind == "array":
        padded, lengths = pad(_same_type([torch.as_tensor(value) for value in values]))
        return {name: padded, f"{name}_lengths": lengths}
    return {name: list(values)}


def _kind(value: Any) -> str:
    if isinstance(value, Segments) or (isinstance(value, list | tuple) and value and isinstance(value[0], Segment)):
        return "segments"
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return "number"
    if isinstance(value, list | tuple) and not value:
        return "empty"
    if isinstance(value, Tensor | np.ndarray):
        return "array"
    if isinstance(value, list | tuple) and isinstance(value[0], int | float | np.number):
        return "array"
    return "other"


def _segments(value: Any) -> tuple[Segment, ...]:
    return value[0] if isinstance(value, Segments) else tuple(value)


def _same_type(items: list[Tensor]) -> list[Tensor]:
    """Whole numbers as int64 and others as float32; an empty list has the others' shape behind axis 0."""
    filled = [item for item in items if item.numel()]
    dtype = torch.float32 if any(item.is_floating_point() for item in filled) else torch.int64
    rest = filled[0].shape[1:] if filled else ()
    return [item.to(dtype) if item.numel() else torch.zeros(0, *rest, dtype=dtype) for item in items]


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
