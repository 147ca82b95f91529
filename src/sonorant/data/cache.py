"""Features kept on disk, under a key of the features' configuration and the item's content.

A key that holds the content cannot go stale: other samples, another sample rate or another configuration are another key.
Each process appends to files of its own and reads those of all, so that no lock is needed; a line of the index is written
after its data and bears a checksum, so that whatever a crash left behind is computed again and never returned.
"""

import hashlib
import json
import logging
import os
import secrets
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sonorant.core.config import at_least, content_hash, one_of, to_plain
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.files import atomic_write
from sonorant.core.lengths import pad
from sonorant.core.types import Batch, Features
from sonorant.data.corpora.corpus import audio_sources
from sonorant.data.reading import read_cut

__all__ = ["FeatureCache"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    file: str
    offset: int
    shape: tuple[int, int]
    frame_rate: float
    checksum: int


class FeatureCache:
    """Computes features once for each content.

    Args:
        folder: where the features lie; one folder may serve several configurations and processes.
        key_config: what decides the features: a configuration dataclass or plain values.
        compute: batch → features, each item's a function of that item alone (as all of `audio.features` are).
        sample_rate: Hz at which `get` reads a cut; not needed for batches.
        dtype: "float32", or "float16" for half the space. What comes back is what was stored, also the first time.
        file_mb: a data file is closed and a new one begun at this size.

    Example::

        cache = FeatureCache("work/features", config, Fbank(...))
        features = cache.get(batch)
    """

    def __init__(
        self,
        folder: str | Path,
        key_config: Any,
        compute: Callable[[Batch], Features],
        *,
        sample_rate: int | None = None,
        dtype: str = "float32",
        file_mb: float = 256.0,
    ) -> None:
        one_of("dtype", dtype, ("float32", "float16"))
        at_least("file_mb", file_mb, 0)
        self._dtype, self._file_bytes = np.dtype(dtype), int(file_mb * 1e6)
        self._compute, self._sample_rate = compute, sample_rate
        self.folder = Path(folder) / content_hash(to_plain(key_config), dtype)
        if not (self.folder / "config.json").exists():
            with atomic_write(self.folder / "config.json") as file:
                file.write(json.dumps({"config": to_plain(key_config), "dtype": dtype}, indent=1).encode())
        self.hits, self.misses = 0, 0
        self._entries: dict[str, _Entry] = {}
        self._seen: dict[str, int] = {}
        self._own: tuple[int, str] = (0, "")

    def __len__(self) -> int:
        """Items at hand, from all processes."""
        self._refresh()
        return len(self._entries)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_entries": {}, "_seen": {}, "_own": (0, "")}

    def get(self, item: Any) -> Features:
        """Features of a `Batch`, or of one lhotse cut (a batch of one), whose audio is only read when they are not there.

        A batch is keyed by its samples. A cut is keyed by its place in the recording, its transforms, and the size and
        time of change of the audio files.

        Raises:
            DataError: the features of an item differ in width or frame rate from those of the others.
            ConfigError: a cut is given and no `sample_rate`.
        """
        if isinstance(item, Batch):
            keys = _batch_keys(item)
            return self._features(keys, lambda rows: _rows_of(item, rows), item.waveform.device)
        if self._sample_rate is None:
            raise ConfigError("FeatureCache needs sample_rate=… to read cuts")
        return self._features(
            [_cut_key(item, self._sample_rate)], lambda rows: self._batch_of(item), torch.device("cpu")
        )

    def _batch_of(self, cut: Any) -> Batch:
        assert self._sample_rate is not None
        waveform = read_cut(cut, self._sample_rate)[None]
        return Batch(waveform, torch.tensor([waveform.shape[1]]), self._sample_rate, ids=(cut.id,))

    def _features(self, keys: Sequence[str], batch_of: Callable[[list[int]], Batch], device: torch.device) -> Features:
        found = self._lookup(keys)
        # The same content twice in a batch is computed once.
        missing = list({keys[row]: row for row in range(len(keys)) if keys[row] not in found}.values())
        self.misses += len(missing)
        self.hits += len(keys) - len(missing)
        if missing:
            features = self._compute(batch_of(missing))
            values = features.values.detach().cpu().numpy().astype(self._dtype)
            items = {
                keys[row]: (np.ascontiguousarray(values[place, : int(features.lengths[place])]), features.frame_rate)
                for place, row in enumerate(missing)
            }
            self._store(items)
            found.update(items)
        arrays = [found[key][0] for key in keys]
        kinds = {(array.shape[1], found[key][1]) for key, array in zip(keys, arrays)}
        if len(kinds) != 1:
            raise DataError(
                f"{self.folder}: features of one configuration differ in (dim, frame_rate): {sorted(kinds)}"
            )
        padded, lengths = pad([torch.from_numpy(array.astype(np.float32)) for array in arrays])
        return Features(padded.to(device), lengths.to(device), kinds.pop()[1])

    def _lookup(self, keys: Sequence[str]) -> dict[str, tuple[np.ndarray, float]]:
        if any(key not in self._entries for key in keys):
            self._refresh()
        found = {}
        for key in dict.fromkeys(keys):
            entry = self._entries.get(key)
            array = self._load(entry) if entry else None
            if entry and array is None:
                _log.warning("%s in %s is damaged and is computed again", key, entry.file)
                del self._entries[key]
            elif entry and array is not None:
                found[key] = (array, entry.frame_rate)
        return found

    def _load(self, entry: _Entry) -> np.ndarray | None:
        size = entry.shape[0] * entry.shape[1] * self._dtype.itemsize
        try:
            with open(self.folder / entry.file, "rb") as file:
                file.seek(entry.offset)
                data = file.read(size)
        except OSError:
            return None
        if len(data) != size or zlib.crc32(data) != entry.checksum:
            return None
        return np.frombuffer(data, dtype=self._dtype).reshape(entry.shape)

    def _refresh(self) -> None:
        """Takes in what all processes have written since; a line without its end is left for the next time."""
        for path in sorted(self.folder.glob("*.jsonl")):
            start = self._seen.get(path.name, 0)
            if path.stat().st_size <= start:
                continue
            with open(path, "rb") as file:
                file.seek(start)
                whole = file.read().rpartition(b"\n")[0]
            for line in whole.splitlines():
                self._take_in(line, path.with_suffix(".bin").name)
            self._seen[path.name] = start + len(whole) + 1 if whole else start

    def _take_in(self, line: bytes, file: str) -> None:
        try:
            key, offset, frames, dim, frame_rate, checksum = json.loads(line)
        except ValueError:
            return
        self._entries[key] = _Entry(file, offset, (frames, dim), frame_rate, checksum)

    def _store(self, items: dict[str, tuple[np.ndarray, float]]) -> None:
        data = self.folder / f"{self._own_name()}.bin"
        lines = []
        with open(data, "ab") as file:
            offset = file.tell()
            for key, (array, frame_rate) in items.items():
                raw = array.tobytes()
                file.write(raw)
                lines.append(json.dumps([key, offset, *array.shape, frame_rate, zlib.crc32(raw)]))
                offset += len(raw)
        with open(data.with_suffix(".jsonl"), "ab") as file:
            file.write(("\n".join(lines) + "\n").encode())

    def _own_name(self) -> str:
        """This process's file; a forked child does not write into its parent's."""
        pid, name = self._own
        data = self.folder / f"{name}.bin"
        if pid != os.getpid() or (data.exists() and data.stat().st_size >= self._file_bytes):
            self._own = (os.getpid(), f"{os.getpid()}-{secrets.token_hex(6)}")
        return self._own[1]


def _batch_keys(batch: Batch) -> list[str]:
    """A digest of each item's samples, without the padding."""
    keys = []
    for row, length in enumerate(batch.lengths.tolist()):
        samples = batch.waveform[row, ..., :length].detach().cpu().contiguous().numpy()
        digest = hashlib.blake2b(f"{batch.sample_rate} {samples.shape} {samples.dtype};".encode(), digest_size=16)
        digest.update(samples.tobytes())
        keys.append(digest.hexdigest())
    return keys


def _rows_of(batch: Batch, rows: list[int]) -> Batch:
    """Some items of a batch, padded no further than they need."""
    lengths = batch.lengths[rows]
    seeds = None if batch.seeds is None else batch.seeds[rows]
    ids = tuple(batch.ids[row] for row in rows) if batch.ids else ()
    return Batch(batch.waveform[rows][..., : int(lengths.max())], lengths, batch.sample_rate, ids=ids, seeds=seeds)


def _cut_key(cut: Any, sample_rate: int) -> str:
    """A digest of all that decides a cut's samples; its id and its labels do not."""
    digest = hashlib.blake2b(f"cut {sample_rate};".encode(), digest_size=16)
    for source in audio_sources(cut):
        digest.update(source)
    digest.update(json.dumps(_plain(cut.to_dict()), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items() if name not in ("id", "supervisions", "custom")}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return hashlib.blake2b(value, digest_size=8).hexdigest() if isinstance(value, bytes) else value
