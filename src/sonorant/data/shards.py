"""Where items come from: cuts in memory, shards that are read as a stream, mixtures of both.

A `Source` is read window by window, and a window is found through a cursor of plain values, so that a position in a corpus
of any size is small, can be stored, and leads straight back to its place. Read `Source` first, then `CutTable` (one window
an epoch), `ShardedCuts` (one window each few shards: memory stays bounded), `Mixture`. `write_shar` writes shards.

Shards are lhotse's Shar format: `cuts.000000.jsonl.gz` beside `recording.000000.tar`. In an uncompressed tar every item can
be found by its offset, so a worker reads the audio of its own items only, and which worker reads what changes nothing.
"""

import gzip
import hashlib
import json
import logging
import tarfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from sonorant.core.config import at_least, one_of
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.files import atomic_folder
from sonorant.core.seed import derive, integers

__all__ = [
    "CutTable",
    "Mixture",
    "ShardedCuts",
    "Source",
    "Window",
    "Written",
    "as_source",
    "mixture",
    "random_order",
    "write_shar",
]

_log = logging.getLogger(__name__)


def random_order(count: int, seed: int) -> np.ndarray:
    """A permutation that is the same on every machine and with every version of numpy.

    It sorts the counter-based draws of `core.seed`: numpy promises no fixed stream for its own generators.
    """
    keys = integers(torch.tensor([seed]), "order", count, high=1 << 48)[0]
    return np.argsort(keys.numpy(), kind="stable")


@dataclass(frozen=True)
class Window:
    """A part of an epoch that is planned at once."""

    refs: Sequence[Any] | np.ndarray
    """What `Source.cut` takes, one an item."""
    durations: np.ndarray
    """Seconds of each item."""
    passes: np.ndarray
    """How many times the item's corpus had been read before, an item each: the epoch its random draws belong to."""
    last: bool
    """Ends an epoch."""
    next: Any
    """Cursor of the window after this one."""

    def chosen(self, indices: np.ndarray) -> list[Any]:
        """References of some items, as plain values."""
        return self.refs[indices].tolist() if isinstance(self.refs, np.ndarray) else [self.refs[i] for i in indices]


@runtime_checkable
class Source(Protocol):
    """A corpus, as batches need it. It is sent to workers, so it must be picklable."""

    def cursor_of(self, epoch: int) -> Any:
        """Cursor of an epoch's first window; plain values, as all cursors."""
        ...

    def window(self, cursor: Any, seed: int, shuffle: bool) -> Window:
        """The window at a cursor: a pure function of its arguments and the corpus."""
        ...

    def cut(self, ref: Any) -> Any:
        """The lhotse cut of an item, without its audio where that lies elsewhere."""
        ...

    def filled(self, cut: Any, ref: Any) -> Any:
        """The same cut with its audio at hand; called in workers."""
        ...

    def fingerprint(self) -> str:
        """A digest that changes when items are added, removed or changed in duration."""
        ...


class CutTable:
    """A corpus whose cuts lie in memory: one window an epoch.

    Args:
        cuts: lhotse cuts, read to the end.
    """

    def __init__(self, cuts: Iterable[Any]) -> None:
        self._cuts = list(cuts)
        self._durations = np.array([cut.duration for cut in self._cuts], dtype=np.float64)

    def __len__(self) -> int:
        return len(self._cuts)

    @property
    def seconds(self) -> float:
        return float(self._durations.sum())

    def cursor_of(self, epoch: int) -> int:
        return epoch

    def window(self, cursor: int, seed: int, shuffle: bool) -> Window:
        count = len(self._cuts)
        return Window(np.arange(count), self._durations, np.full(count, cursor), last=True, next=cursor + 1)

    def cut(self, ref: int) -> Any:
        return self._cuts[ref]

    def filled(self, cut: Any, ref: int) -> Any:
        return cut

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(self._durations.tobytes(), digest_size=8)
        digest.update("\x1f".join(cut.id for cut in self._cuts).encode())
        return digest.hexdigest()


class ShardedCuts:
    """A corpus in Shar folders, read as a stream with bounded memory.

    In each pass the shards come in a new order, and the items of `shards_in_window` shards that follow each other are
    shuffled and bucketed together (the shuffle buffer). The cursor is `{"pass": p, "shard": s}`, s counted in that pass's
    order. In memory are the manifests of at most 2 × `shards_in_window` shards and the audio of the batches in flight.

    Args:
        folders: one Shar folder or several; or, as `streams`, lhotse's mapping from field to paths of shards.
        shards_in_window: more mixes better and takes more memory.

    Raises:
        DataError: no shards, fields with different numbers of shards, or compressed tars, which cannot be read by offset.
    """

    def __init__(
        self,
        folders: str | Path | Sequence[str | Path] | None = None,
        *,
        streams: Mapping[str, Sequence[str | Path]] | None = None,
        shards_in_window: int = 8,
    ) -> None:
        at_least("shards_in_window", shards_in_window, 1)
        if streams is None:
            several = [folders] if isinstance(folders, str | Path) else list(folders or [])
            self._shards = [paths for folder in several for paths in _shards_of(_streams(Path(folder)), str(folder))]
        else:
            self._shards = _shards_of(streams, "streams")
        if not self._shards:
            raise DataError(
                f"no shards in {folders or streams}: expected cuts.000000.jsonl.gz and so on; see write_shar"
            )
        self._in_window = shards_in_window
        self._open: OrderedDict[int, _Shard] = OrderedDict()

    @property
    def num_shards(self) -> int:
        return len(self._shards)

    def cursor_of(self, epoch: int) -> dict[str, int]:
        return {"pass": epoch, "shard": 0}

    def window(self, cursor: Mapping[str, int], seed: int, shuffle: bool) -> Window:
        count, done, first = len(self._shards), cursor["pass"], cursor["shard"]
        order = random_order(count, derive(seed, "shards", done)) if shuffle else np.arange(count)
        chosen = order[first : first + self._in_window].tolist()
        durations = [self._shard(shard).durations for shard in chosen]
        refs = [np.stack([np.full(len(d), shard), np.arange(len(d))], axis=1) for shard, d in zip(chosen, durations)]
        last = first + self._in_window >= count
        after = {"pass": done + 1, "shard": 0} if last else {"pass": done, "shard": first + self._in_window}
        joined = np.concatenate(durations)
        return Window(np.concatenate(refs), joined, np.full(len(joined), done), last, after)

    def cut(self, ref: Sequence[int]) -> Any:
        return self._shard(int(ref[0])).cut(int(ref[1]))

    def filled(self, cut: Any, ref: Sequence[int]) -> Any:
        return self._shard(int(ref[0])).filled(cut, int(ref[1]))

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=8)
        for paths in self._shards:
            for name in sorted(paths):
                digest.update(f"{paths[name].name}:{paths[name].stat().st_size};".encode())
        return digest.hexdigest()

    def _shard(self, index: int) -> "_Shard":
        if index in self._open:
            self._open.move_to_end(index)
        else:
            self._open[index] = _Shard(self._shards[index])
            while len(self._open) > 2 * self._in_window:
                self._open.popitem(last=False)
        return self._open[index]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}


class _Shard:
    """Manifest lines of one shard and the offsets of its data; no file stays open."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths
        self._lines = _read_lines(paths["cuts"])
        self._members: dict[str, list[tuple[str, int, int]]] = {}
        self._tables: dict[str, list[bytes]] = {}

    @cached_property
    def durations(self) -> np.ndarray:
        return np.array([_duration(json.loads(line)) for line in self._lines], dtype=np.float64)

    def cut(self, index: int) -> Any:
        from lhotse.serialization import deserialize_item

        return deserialize_item(json.loads(self._lines[index]))

    def filled(self, cut: Any, index: int) -> Any:
        from lhotse.serialization import deserialize_item
        from lhotse.shar.utils import fill_shar_placeholder

        for name, path in self._paths.items():
            if name == "cuts":
                continue
            if not path.name.endswith(".tar"):
                value = json.loads(self._table(name)[index])
                if name in value:
                    setattr(cut, name, value[name])
                continue
            data, member, meta = self._read(name, index)
            if Path(member).with_suffix("").as_posix() != cut.id:
                raise DataError(f"item '{cut.id}': {path} holds '{member}' in its place {index}; write the shards anew")
            if meta:
                manifest = deserialize_item(json.loads(meta))
                fill_shar_placeholder(manifest=manifest, data=data, tarpath=member)
                setattr(cut, name, manifest)
        return cut

    def _table(self, name: str) -> list[bytes]:
        if name not in self._tables:
            self._tables[name] = _read_lines(self._paths[name])
        return self._tables[name]

    def _read(self, name: str, index: int) -> tuple[bytes, str, bytes]:
        """Data of an item, its name in the tar, and its manifest as JSON (empty where the item lacks this field)."""
        if name not in self._members:
            self._members[name] = _members(self._paths[name])
        members = self._members[name]
        if 2 * index + 1 >= len(members):
            raise DataError(f"{self._paths[name]} ends before item {index}: the shard is cut short; write it anew")
        with open(self._paths[name], "rb") as file:
            (member, start, size), (_, meta_start, meta_size) = members[2 * index], members[2 * index + 1]
            file.seek(start)
            data = file.read(size)
            file.seek(meta_start)
            return data, member, file.read(meta_size)


def _read_lines(path: Path) -> list[bytes]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            return file.read().splitlines()
    except (OSError, EOFError) as error:
        raise DataError(f"cannot read {path}: {error}; write the shards anew") from error


def _duration(cut: Mapping[str, Any]) -> float:
    """Seconds of a serialised cut; a mixed cut lasts as long as its longest track."""
    if "duration" in cut:
        return float(cut["duration"])
    return max(float(track.get("offset", 0.0)) + _duration(track["cut"]) for track in cut["tracks"])


def _members(path: Path) -> list[tuple[str, int, int]]:
    """Name, offset and size of each file in a tar, as far as the tar is whole."""
    found: list[tuple[str, int, int]] = []
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.offset_data + member.size <= size:
                    found.append((member.name, member.offset_data, member.size))
    except tarfile.ReadError as error:
        _log.warning("%s is damaged behind its file %d: %s", path, len(found), error)
    return found


def _streams(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise DataError(f"no folder of shards at {folder}")
    streams: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            streams.setdefault(path.name.split(".")[0], []).append(path)
    return streams


def _shards_of(streams: Mapping[str, Sequence[str | Path]], where: str) -> list[dict[str, Path]]:
    counts = {name: len(paths) for name, paths in streams.items()}
    if "cuts" not in counts or len(set(counts.values())) != 1:
        raise DataError(f"{where}: each field needs as many shards as 'cuts', got {counts or 'no files'}")
    shards = [{name: Path(streams[name][i]) for name in streams} for i in range(counts["cuts"])]
    for path in (path for shard in shards for path in shard.values()):
        if not path.is_file() or ".tar." in path.name:
            raise DataError(f"{path} must be a local file, and a tar uncompressed: items are read by their offsets")
    return shards


# --- mixtures ---


class Mixture:
    """Several corpora, each with a share of the seconds; see `mixture`."""

    def __init__(self, parts: Sequence[Source], shares: Sequence[float], window_seconds: float) -> None:
        self.parts, self.shares, self.window_seconds = list(parts), tuple(shares), window_seconds

    def cursor_of(self, epoch: int) -> dict[str, Any]:
        if epoch:
            raise DataError("a mixture cannot jump to an epoch by its number: its corpora pass at different rates")
        return {"window": 0, "parts": [[part.cursor_of(0), 0] for part in self.parts]}

    def window(self, cursor: Mapping[str, Any], seed: int, shuffle: bool) -> Window:
        refs: list[tuple[int, Any]] = []
        durations, passes, places = [], [], []
        for index, (part, share) in enumerate(zip(self.parts, self.shares)):
            place, walk = cursor["parts"][index], derive(seed, "part", index)
            for found, taken, reached in _walk(part, place, share * self.window_seconds, walk):
                place = reached
                refs.extend((index, ref) for ref in found.chosen(taken))
                durations.append(found.durations[taken])
                passes.append(found.passes[taken])
            places.append(place)
        after = {"window": cursor["window"] + 1, "parts": places}
        # The stream has no end; calling each window an epoch would only tear rounds apart.
        return Window(refs, np.concatenate(durations), np.concatenate(passes), last=False, next=after)

    def cut(self, ref: tuple[int, Any]) -> Any:
        return self.parts[ref[0]].cut(ref[1])

    def filled(self, cut: Any, ref: tuple[int, Any]) -> Any:
        return self.parts[ref[0]].filled(cut, ref[1])

    def fingerprint(self) -> str:
        prints = [part.fingerprint() for part in self.parts]
        text = json.dumps([prints, self.shares, self.window_seconds])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _walk(
    source: Source, place: list[Any], seconds: float, seed: int
) -> Iterable[tuple[Window, np.ndarray, list[Any]]]:
    """The next items of a corpus that is read over and over in random order, until they last `seconds`."""
    (cursor, offset), barren = place, 0
    while True:
        found = source.window(cursor, seed, True)
        order = random_order(len(found.durations), derive(seed, "walk", json.dumps(cursor)))[offset:]
        ends = np.cumsum(found.durations[order])
        # An item belongs to this window when its middle does: no drift, whatever the items' durations.
        count = int(np.searchsorted(ends - found.durations[order] / 2, seconds))
        if count < len(order):
            yield found, order[:count], [cursor, offset + count]
            return
        seconds -= float(ends[-1]) if len(ends) else 0.0
        barren = barren + 1 if not len(order) and offset == 0 else 0
        if barren and found.last:
            raise DataError("a corpus of the mixture is empty: leave it out")
        cursor, offset = found.next, 0
        yield found, order, [cursor, offset]


def mixture(
    parts: Sequence[tuple[Any, float | None]], *, temperature: float = 1.0, window_seconds: float | None = None
) -> Mixture:
    """An endless mixture of corpora, each read over and over in random order, for training.

    Args:
        parts: (cuts or Shar folder or source, weight). A corpus gets weight^(1/temperature) over the sum of these as its
            share of the seconds of audio. Weight None: the corpus's own seconds.
        temperature: 1 keeps the weights; larger makes the shares more equal, as for rare languages (arXiv:1907.05019).
        window_seconds: seconds that are planned and shuffled at once; the sum of the corpora in memory, at least an hour.

    >>> from types import SimpleNamespace
    >>> small, large = ([SimpleNamespace(id="a", duration=seconds)] for seconds in (1.0, 9.0))
    >>> mixture([(small, None), (large, None)], temperature=2).shares
    (0.25, 0.75)
    """
    if not parts:
        raise ConfigError("a mixture needs at least one corpus")
    if not temperature > 0:
        raise ConfigError(f"temperature must be above 0, got {temperature}")
    sources = [as_source(cuts) for cuts, _ in parts]
    sizes = [source.seconds if isinstance(source, CutTable) else None for source in sources]
    weights = [weight if weight is not None else size for (_, weight), size in zip(parts, sizes)]
    known = [weight for weight in weights if weight is not None]
    if len(known) < len(weights):
        raise ConfigError("a corpus in shards needs a weight: its seconds are not known without reading it to the end")
    if not all(weight > 0 for weight in known):
        raise ConfigError(f"weights must be above 0, got {known}: leave a corpus out that is not wanted")
    powers = [weight ** (1 / temperature) for weight in known]
    shares = [power / sum(powers) for power in powers]
    return Mixture(sources, shares, window_seconds or max(3600.0, sum(size or 0.0 for size in sizes)))


def as_source(cuts: Any) -> Source:
    """A source from whatever names a corpus: a source, a Shar folder, a lhotse `CutSet`, or any iterable of cuts.

    A `CutSet` that reads Shar is read as a stream; any other is read into memory.
    """
    if isinstance(cuts, Source):
        return cuts
    if isinstance(cuts, str | Path):
        return ShardedCuts(cuts)
    data: Any = getattr(cuts, "data", None)
    if type(data).__name__ == "LazySharIterator":
        return ShardedCuts(streams=data.streams)
    return CutTable(cuts)


# --- writing ---


@dataclass(frozen=True)
class Written:
    """What `write_shar` wrote."""

    num_items: int
    num_shards: int
    seconds: float
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Id → reason, of items whose audio could not be read."""


def write_shar(
    cuts: Iterable[Any],
    folder: str | Path,
    *,
    shard_size: int = 1000,
    audio_format: str = "flac",
    max_skipped_share: float = 0.05,
) -> Written:
    """Writes cuts and their audio as a Shar folder; the folder appears when it is whole.

    Args:
        cuts: lhotse cuts, read once.
        folder: to be written; one that exists is replaced.
        shard_size: items in a shard.
        audio_format: "flac", "opus" or "wav"; flac (16 bit) and wav keep the samples, opus is smaller and lossy.
        max_skipped_share: unreadable items are left out and listed, up to this share of all.

    Raises:
        DataError: nothing to write, or too many items cannot be read.
    """
    from lhotse.shar.writers.shar import SharWriter

    from sonorant.data.corpora.corpus import load_audio

    one_of("audio_format", audio_format, ("flac", "opus", "wav"))
    at_least("shard_size", shard_size, 1)
    count, seconds, skipped = 0, 0.0, {}
    with atomic_folder(folder) as part:
        with SharWriter(part, fields={"recording": audio_format}, shard_size=shard_size) as writer:
            for cut in cuts:
                # The writer would leave its files out of step if a cut failed between them, so reading is tried first.
                try:
                    load_audio(cut)
                except Exception as error:
                    skipped[cut.id] = f"{type(error).__name__}: {error}"
                    continue
                writer.write(cut)
                count, seconds = count + 1, seconds + cut.duration
        total = count + len(skipped)
        if not count or len(skipped) > max_skipped_share * total:
            first = "; ".join(f"{name}: {reason[:200]}" for name, reason in list(skipped.items())[:3])
            raise DataError(
                f"{folder}: {len(skipped)} of {total} items cannot be read ({first or 'the corpus is empty'})"
            )
    return Written(count, -(-count // shard_size), seconds, skipped)
