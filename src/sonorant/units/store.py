"""Units of a whole corpus on disk: one flat array, an index by the cuts' ids, and what the frames are.

    store/
      units.bin     all ids, one after another, int16 or int32, little-endian
      index.jsonl   [id, first, frames, samples] of each cut
      store.json    frame rate, offset, number of units, sample rate

The folder appears whole or not at all. Reading maps the array, so that a store of any size costs no memory, and a store sent
to another process is only its path. `UnitStore.of` is a label for `data.batches`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from sonorant.core.alignment import nearest_frames
from sonorant.core.errors import DataError
from sonorant.core.files import atomic_folder, file_digest, recover_folder
from sonorant.core.types import Units
from sonorant.metrics.units import CodeCounts

__all__ = ["UnitLabels", "UnitStore", "write_units"]

UNITS, INDEX, META = "units.bin", "index.jsonl", "store.json"
SCHEMA = 1


def write_units(
    folder: str | Path, items: Iterable[tuple[str, Units, int]], *, offset: float, sample_rate: int, note: Any = None
) -> "UnitStore":
    """Writes a store, item by item.

    Args:
        folder: where; replaced if it is there.
        items: id, units of one item, and the samples they stand for, as `units.tokenizer.tokenise` gives them.
        offset: seconds to the middle of the first frame.
        sample_rate: Hz, of the samples.
        note: plain values to be kept with the store, such as what made the units.

    Raises:
        DataError: no item, one id twice, units of several frame rates or inventories, a unit outside the inventory.
    """
    seen: dict[str, tuple[int, int, int]] = {}
    kind: tuple[float, int] | None = None
    first = 0
    with (
        atomic_folder(folder) as part,
        (part / UNITS).open("wb") as flat,
        (part / INDEX).open("w", encoding="utf-8") as index,
    ):
        for name, units, samples in items:
            kind = kind or (units.frame_rate, units.num_units)
            ids = units.ids.reshape(-1)[: int(units.lengths[0])].cpu().numpy()
            _check(name, ids, units, kind, seen)
            flat.write(ids.astype(_dtype(units.num_units)).tobytes())
            seen[name] = (first, len(ids), samples)
            index.write(json.dumps([name, *seen[name]], ensure_ascii=False) + "\n")
            first += len(ids)
        if kind is None:
            raise DataError("there are no units to write: the split is empty")
        meta = {"schema": SCHEMA, "frame_rate": kind[0], "num_units": kind[1], "offset": offset}
        text = json.dumps({**meta, "sample_rate": sample_rate, "num_frames": first, "note": note}, indent=1)
        (part / META).write_text(text + "\n", encoding="utf-8")
    return UnitStore(folder)


def _dtype(num_units: int) -> Any:
    return np.dtype("<i2" if num_units <= 1 << 15 else "<i4")


def _check(name: str, ids: np.ndarray, units: Units, kind: tuple[float, int], seen: dict[str, Any]) -> None:
    if name in seen:
        raise DataError(f"units of '{name}' came twice: ids must differ within a store")
    if (units.frame_rate, units.num_units) != kind:
        raise DataError(
            f"'{name}' has {units.num_units} units at {units.frame_rate:g} frames a second, those before {kind[1]} at "
            f"{kind[0]:g}: a store holds units of one kind"
        )
    if len(ids) and not (ids.min() >= 0 and ids.max() < units.num_units):
        raise DataError(f"'{name}' has units {ids.min()} … {ids.max()}, outside 0 … {units.num_units - 1}")


class UnitStore:
    """Units by the id of their cut.

    Args:
        folder: what `write_units` wrote.

    Raises:
        DataError: nothing there, damaged or cut short (the index when it is first used), or of another version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        recover_folder(self.folder)
        try:
            meta = dict(json.loads((self.folder / META).read_text(encoding="utf-8")))
            size = (self.folder / UNITS).stat().st_size
        except (OSError, TypeError, ValueError) as error:
            raise DataError(f"no units at {self.folder}: {error}") from None
        if meta.get("schema") != SCHEMA:
            raise DataError(f"{self.folder} has schema {meta.get('schema')}, this version reads {SCHEMA}: make it anew")
        try:
            self.frame_rate, self.offset = float(meta["frame_rate"]), float(meta["offset"])
            self.num_units, self.sample_rate = int(meta["num_units"]), int(meta["sample_rate"])
            self.num_frames, self.note = int(meta["num_frames"]), meta["note"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.folder / META} is damaged ({error!r}): make the units anew") from None
        if size != self.num_frames * _dtype(self.num_units).itemsize:
            raise DataError(
                f"{self.folder / UNITS} is cut short: {size} bytes for {self.num_frames} frames; make it anew"
            )

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return UnitStore, (self.folder,)

    @cached_property
    def _flat(self) -> np.ndarray:
        dtype = _dtype(self.num_units)
        if not self.num_frames:
            return np.zeros(0, dtype)
        return np.memmap(self.folder / UNITS, dtype=dtype, mode="r")

    @cached_property
    def _index(self) -> dict[str, tuple[int, int, int]]:
        try:
            with (self.folder / INDEX).open(encoding="utf-8") as lines:
                found = {name: (first, frames, samples) for name, first, frames, samples in map(json.loads, lines)}
            counted = sum(frames for _, frames, _ in found.values())
        except (OSError, TypeError, ValueError) as error:
            raise DataError(f"{self.folder / INDEX} is damaged ({error}): make the units anew") from None
        if counted != self.num_frames:
            raise DataError(
                f"{self.folder / INDEX} is cut short: {counted} of {self.num_frames} frames in {len(found)} cuts; make the "
                "units anew"
            )
        return found

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, name: object) -> bool:
        return name in self._index

    @property
    def ids(self) -> list[str]:
        """Ids of the cuts."""
        return list(self._index)

    def __getitem__(self, name: str) -> Int[np.ndarray, " frame"]:
        """The units of a cut.

        Raises:
            DataError: there are none.
        """
        first, frames, _ = self._row(name)
        return self._flat[first : first + frames].astype(np.int64)

    def _row(self, name: str) -> tuple[int, int, int]:
        if name not in self._index:
            raise DataError(
                f"{self.folder} has no units of '{name}' among those of {len(self)} cuts: label its split first"
            )
        return self._index[name]

    def samples(self, name: str) -> int:
        """Samples that the units of a cut were made of.

        Raises:
            DataError: there are none.
        """
        return self._row(name)[2]

    def of(self, cut: Any) -> Int[np.ndarray, " frame"]:
        """The units of a cut, as a label of a batch.

        Raises:
            DataError: there are none, or they were made of more or less audio than the cut has.
        """
        ids = self[cut.id]
        made_of = self.samples(cut.id) / self.sample_rate
        # Resampling may round the number of samples.
        if abs(made_of - cut.duration) > 2 / self.sample_rate + 1e-4:
            raise DataError(
                f"the units of '{cut.id}' in {self.folder} were made of {made_of:.3f} s of audio, and it has "
                f"{cut.duration:.3f} s: another cut of the same id? Label the split anew"
            )
        return ids

    def at(self, frame_rate: float, offset: float, output_lengths: Callable[[int], Any]) -> "UnitLabels":
        """The same units on the frames of an encoder with another rate or first frame.

        Args:
            frame_rate: of the encoder.
            offset: seconds to the middle of its first frame.
            output_lengths: its frames for samples at the store's sample rate.
        """
        return UnitLabels(self, frame_rate, offset, output_lengths)

    def digest(self) -> str:
        """Sixteen hexadecimal digits for all that the store holds."""
        files = "".join(file_digest(path) for path in sorted(self.folder.iterdir()))
        return hashlib.sha256(files.encode()).hexdigest()[:16]

    def counts(self) -> CodeCounts:
        """How often each unit occurs."""
        counts, block = CodeCounts(self.num_units), 1 << 22
        for start in range(0, self.num_frames, block):
            counts.update(self._flat[start : start + block])
        return counts


@dataclass(frozen=True)
class UnitLabels:
    """A label of a batch: for each of an encoder's frames the unit whose frame's middle is nearest."""

    store: UnitStore
    frame_rate: float
    offset: float
    output_lengths: Callable[[int], Any]

    def __call__(self, cut: Any) -> Int[np.ndarray, " frame"]:
        """Raises `DataError` as `UnitStore.of`."""
        ids = self.store.of(cut)
        count = int(self.output_lengths(self.store.samples(cut.id)))
        row = (len(ids), self.store.frame_rate, self.store.offset)
        return ids[nearest_frames(count, self.frame_rate, self.offset, of=row)]
