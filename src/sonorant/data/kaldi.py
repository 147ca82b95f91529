"""Kaldi's own formats: text tables, and archives of matrices with their index (`feats.ark`, `feats.scp`).

Reads and writes binary float matrices and vectors, integer vectors and the three compressed forms; text archives are read.
Layout after kaldi/src/matrix/{kaldi-matrix,compressed-matrix}.cc. Commands in a table (`sox … |`) are refused by
`plain_path`: a data set must not run programs. Data directories are in `data/corpora/kaldi_folder.py`.
"""

import math
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from sonorant.core.errors import DataError
from sonorant.core.files import atomic_write

__all__ = ["Compression", "Features", "plain_path", "read_ark", "read_matrix", "read_table", "write_features",
           "write_table"]  # fmt: skip

Compression = Literal["none", "speech", "two-byte", "one-byte"]
"""none: float32. speech: one byte with percentiles for each column (CM). two-byte: CM2. one-byte: CM3."""

_DTYPES = {b"FM": "<f4", b"DM": "<f8", b"FV": "<f4", b"DV": "<f8"}
_LONGEST_KEY = 10_000
_RANGE = re.compile(r"^(.*)\[([\d:,]*)\]$")


# --- tables -----------------------------------------------------------------------------------------------------------


def read_table(path: Path) -> dict[str, str]:
    """A table `KEY VALUE…` as key → rest of the line.

    Raises:
        DataError: missing, not UTF-8, or a key stands twice (with its line).
    """
    table: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"no table at {path}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}") from None
    # Only "\n" ends a line: transcripts may hold other characters that `splitlines` would break at.
    for number, line in enumerate(text.split("\n"), start=1):
        key, *rest = line.strip().split(maxsplit=1)[:2] or [""]
        if not key:
            continue
        if key in table:
            raise DataError(f"{path} line {number}: '{key}' stands twice")
        table[key] = rest[0] if rest else ""
    return table


def write_table(path: Path, table: Mapping[str, str]) -> None:
    """Writes a table sorted by bytes, as Kaldi needs it (`LC_ALL=C`), in one step.

    Raises:
        DataError: a key is empty or holds white space.
    """
    for key in table:
        if not key or key.split() != [key]:
            raise DataError(f"Kaldi's keys hold no white space, got '{key}' for {path.name}; give the items other ids")
    lines = (f"{key} {' '.join(table[key].split())}".rstrip() for key in sorted(table, key=str.encode))
    with atomic_write(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def plain_path(entry: str, where: str) -> str:
    """The path in an entry of an scp table; `cat FILE |` counts as FILE.

    Raises:
        DataError: the entry is a command or standard input.
    """
    entry = entry.strip()
    harmless = re.fullmatch(r"cat\s+([^\s|;&<>$`'\"]+)\s*\|", entry)
    if harmless:
        return harmless[1]
    if entry.endswith("|") or entry.startswith("|") or entry == "-":
        raise DataError(
            f"{where} is a command ({entry[:60]}); commands in data are never run. Write its output to files "
            "(Kaldi: wav-copy scp:wav.scp ark,scp:… or a loop over sox) and name those"
        )
    return entry


# --- reading archives -------------------------------------------------------------------------------------------------


class Features(Mapping[str, np.ndarray]):
    """The matrices behind a `feats.scp`, each read when asked for."""

    def __init__(self, scp: Path):
        self.scp = scp
        self._places = read_table(scp)

    def __getitem__(self, key: str) -> np.ndarray:
        return read_matrix(self._places[key], where=f"{self.scp} '{key}'", base=self.scp.parent)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def read_matrix(place: str, *, where: str = "", base: Path | None = None) -> np.ndarray:
    """One matrix or vector at `FILE`, `FILE:OFFSET` or either with a range `[first:last,first:last]` (both ends count).

    Args:
        place: the entry of an scp table.
        where: what to call it in messages.
        base: folder that relative paths may also be relative to.

    Raises:
        DataError: a command, a missing file, or bytes that are not a matrix.
    """
    path_text = plain_path(place, where or place)
    ranges = _RANGE.match(path_text)
    if ranges:
        path_text = ranges[1]
    name, _, offset = path_text.rpartition(":")
    if not (name and offset.isdigit()):
        name, offset = path_text, "0"
    path = Path(name)
    if base is not None and not path.is_absolute() and not path.exists():
        path = base / path
    try:
        with path.open("rb") as file:
            file.seek(int(offset))
            matrix = _read_value(file, where or place)
    except FileNotFoundError:
        raise DataError(f"{where or place}: no archive at {path}") from None
    return _cut_range(matrix, ranges[2], where or place) if ranges else matrix


def read_ark(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Key and value of each entry of an archive, in order."""
    with path.open("rb") as file:
        while True:
            key = _read_token(file)
            if not key:
                return
            yield key, _read_value(file, f"{path} '{key}'")


def _cut_range(matrix: np.ndarray, text: str, where: str) -> np.ndarray:
    parts = text.split(",")
    if len(parts) > matrix.ndim:
        raise DataError(f"{where}: range [{text}] does not fit a matrix of shape {matrix.shape}")
    for axis, part in enumerate(parts):
        if part and part != ":":
            first, _, last = part.partition(":")
            if not (first.isdigit() and last.isdigit() and int(last) < matrix.shape[axis]):
                raise DataError(f"{where}: range [{text}] does not fit a matrix of shape {matrix.shape}")
            matrix = matrix.take(range(int(first), int(last) + 1), axis)
    return matrix


def _read_token(file: BinaryIO) -> str:
    token = bytearray()
    while byte := file.read(1):
        if byte.isspace():
            if token:
                break
            continue
        token += byte
        if len(token) > _LONGEST_KEY:
            raise DataError(f"{file.name}: no archive, a key has more than {_LONGEST_KEY} bytes")
    try:
        return token.decode()
    except UnicodeDecodeError:
        raise DataError(f"{file.name}: no archive, the key {bytes(token[:20])!r} is not UTF-8") from None


def _read_value(file: BinaryIO, where: str) -> np.ndarray:
    start = file.tell()
    if file.read(2) != b"\0B":
        file.seek(start)
        return _read_text(file, where)
    kind = file.read(1)
    if kind == b"\4":
        return _read_integers(file, where)
    while len(kind) < 8 and (byte := file.read(1)) not in (b" ", b""):
        kind += byte
    if kind in _DTYPES:
        shape = [_read_size(file, where) for _ in range(2 if kind.endswith(b"M") else 1)]
        return _array(file, _DTYPES[kind], math.prod(shape), where).reshape(shape)
    if kind in (b"CM", b"CM2", b"CM3"):
        return _read_compressed(file, kind, where)
    raise DataError(f"{where}: not a Kaldi matrix (type {kind[:8]!r}); known: FM, DM, FV, DV, CM, CM2, CM3, integers")


def _read_size(file: BinaryIO, where: str) -> int:
    raw = file.read(5)
    if len(raw) != 5 or raw[0] != 4:
        raise DataError(f"{where}: damaged, the size of a matrix is not readable")
    size = int(struct.unpack("<i", raw[1:])[0])
    if size < 0:
        raise DataError(f"{where}: damaged, a size of a matrix is {size}")
    return size


def _unpack(file: BinaryIO, layout: str, where: str) -> tuple[Any, ...]:
    raw = file.read(struct.calcsize(layout))
    if len(raw) != struct.calcsize(layout):
        raise DataError(f"{where}: cut short in the head of a matrix")
    return struct.unpack(layout, raw)


def _array(file: BinaryIO, dtype: str, count: int, where: str) -> np.ndarray:
    if count < 0:
        raise DataError(f"{where}: damaged, a size is negative")
    # Before room is made for it: a damaged size may ask for any amount of memory.
    wanted, left = count * np.dtype(dtype).itemsize, os.fstat(file.fileno()).st_size - file.tell()
    if wanted > left:
        raise DataError(f"{where}: cut short, {wanted} bytes of data expected and {left} there")
    values = np.empty(count, dtype)
    if count:
        file.readinto(values.data.cast("B"))  # type: ignore[attr-defined]
    return values


def _read_integers(file: BinaryIO, where: str) -> np.ndarray:
    (count,) = _unpack(file, "<i", where)
    # Each value is written with its own size byte.
    raw = _array(file, "u1", 5 * count, where).reshape(count, 5)
    return raw[:, 1:].copy().view("<i4").reshape(count)


def _read_text(file: BinaryIO, where: str) -> np.ndarray:
    text = bytearray()
    while (byte := file.read(1)) not in (b"]", b""):
        text += byte
        # Anything at all could stand here: what is no matrix is not read to its end.
        if b"[" not in text and not text.isspace():
            break
    head, bracket, body = text.decode(errors="replace").partition("[")
    try:
        if not bracket or head.strip():
            raise ValueError("no '['")
        rows = [[float(value) for value in line.split()] for line in body.split("\n") if line.strip()]
        matrix = np.asarray(rows, dtype=np.float32)
    except ValueError as error:
        raise DataError(f"{where}: neither binary nor a text matrix ({error})") from None
    # A vector stands on the line of its bracket, a matrix begins on the next.
    return matrix[0] if len(rows) == 1 and body.split("\n")[0].strip() else matrix


def _read_compressed(file: BinaryIO, kind: bytes, where: str) -> np.ndarray:
    low, width, rows, columns = _unpack(file, "<ffii", where)
    if rows < 0 or columns < 0:
        raise DataError(f"{where}: damaged, the size of a matrix is {rows} × {columns}")
    if kind == b"CM2":
        return (low + _array(file, "<u2", rows * columns, where).reshape(rows, columns) * (width / 65535)).astype("f4")
    if kind == b"CM3":
        return (low + _array(file, "u1", rows * columns, where).reshape(rows, columns) * (width / 255)).astype("f4")
    heads = low + _array(file, "<u2", 4 * columns, where).reshape(columns, 4).astype(np.float64) * (width / 65535)
    p0, p25, p75, p100 = (heads[:, i, None] for i in range(4))
    # 64 steps up to the first quartile, 128 to the third, 63 above: fine where most values lie. All 256 values of each
    # column are worked out once and looked up.
    steps = np.arange(256)
    lower = p0 + (p25 - p0) * steps[:65] / 64
    middle = p25 + (p75 - p25) * (steps[65:193] - 64) / 128
    upper = p75 + (p100 - p75) * (steps[193:] - 192) / 63
    values = np.concatenate([lower, middle, upper], axis=1).astype("f4")
    codes = _array(file, "u1", rows * columns, where).reshape(columns, rows)
    places = codes + 256 * np.arange(columns)[:, None]
    return np.ascontiguousarray(values.ravel()[places].T)


# --- writing archives -------------------------------------------------------------------------------------------------


def write_features(
    folder: Path, items: Iterable[tuple[str, np.ndarray]], *, name: str = "feats", compression: Compression = "none"
) -> int:
    """Writes `NAME.ark` and `NAME.scp` into a folder and returns the number of entries.

    Args:
        folder: where to; the index holds absolute paths.
        items: key and value: float matrix or vector, or vector of integers.
        name: first part of the two files' names.
        compression: for matrices only; "speech" falls back to "two-byte" below eight rows, as Kaldi does.

    Raises:
        DataError: a key with white space, a value that is neither, not finite, or of more than two axes.
    """
    ark = (folder / f"{name}.ark").absolute()
    places: dict[str, str] = {}
    with atomic_write(ark) as file:
        for key, value in items:
            if key in places:
                raise DataError(f"{ark.name}: '{key}' stands twice")
            file.write(f"{key} ".encode())
            places[key] = f"{ark}:{file.tell()}"
            file.write(_encoded(key, np.asarray(value), compression))
    write_table(folder / f"{name}.scp", places)
    return len(places)


def _encoded(key: str, value: np.ndarray, compression: Compression) -> bytes:
    if value.dtype.kind in "iu" and value.ndim == 1:
        with_sizes = np.empty((len(value), 5), np.uint8)
        with_sizes[:, 0] = 4
        with_sizes[:, 1:] = value.astype("<i4").view(np.uint8).reshape(len(value), 4)
        return b"\0B\4" + struct.pack("<i", len(value)) + with_sizes.tobytes()
    if value.dtype.kind != "f" or value.ndim not in (1, 2):
        raise DataError(f"'{key}': a float matrix or vector or a vector of integers, got {value.dtype} {value.shape}")
    if not np.isfinite(value).all():
        raise DataError(f"'{key}': values that are not finite cannot go into an archive")
    if value.ndim == 2 and compression != "none" and value.size:
        return _compressed(value.astype(np.float64), compression)
    token = (b"D" if value.dtype == np.float64 else b"F") + (b"M " if value.ndim == 2 else b"V ")
    sizes = b"".join(b"\4" + struct.pack("<i", size) for size in value.shape)
    return b"\0B" + token + sizes + value.astype(value.dtype.newbyteorder("<")).tobytes()


def _compressed(matrix: np.ndarray, compression: Compression) -> bytes:
    rows, columns = matrix.shape
    low = float(np.float32(matrix.min()))
    high = float(matrix.max())
    width = float(np.float32(high - low)) if high > low else 1 + abs(low)
    head = struct.pack("<ffii", low, width, rows, columns)
    share = np.clip((matrix - low) / width, 0, 1)
    if compression == "one-byte":
        return b"\0BCM3 " + head + np.floor(share * 255 + 0.5).astype("u1").tobytes()
    if compression == "two-byte" or rows < 8:
        return b"\0BCM2 " + head + np.floor(share * 65535 + 0.499).astype("<u2").tobytes()
    heads = _percentiles(share)
    p0, p25, p75, p100 = (low + heads[i] * (width / 65535) for i in range(4))
    lower = np.clip(np.floor((matrix - p0) / (p25 - p0) * 64 + 0.5), 0, 64)
    middle = np.clip(64 + np.floor((matrix - p25) / (p75 - p25) * 128 + 0.5), 64, 192)
    upper = np.clip(192 + np.floor((matrix - p75) / (p100 - p75) * 63 + 0.5), 192, 255)
    codes = np.where(matrix < p25, lower, np.where(matrix < p75, middle, upper)).astype("u1")
    return b"\0BCM " + head + heads.T.astype("<u2").tobytes() + codes.T.tobytes()


def _percentiles(share: np.ndarray) -> np.ndarray:
    """Least value, first and third quartile and greatest of each column in 65535ths, each above the one before."""
    ordered = np.sort(np.floor(share * 65535 + 0.499), axis=0)
    quarter = len(ordered) // 4
    p0 = np.minimum(ordered[0], 65532)
    p25 = np.minimum(np.maximum(ordered[quarter], p0 + 1), 65533)
    p75 = np.minimum(np.maximum(ordered[3 * quarter], p25 + 1), 65534)
    return np.stack([p0, p25, p75, np.maximum(ordered[-1], p75 + 1)])
