"""The ARPA format: what every decoder reads. Logarithms to base 10 in the file, natural ones in memory.

Levels are written in the order of their keys, so the same model gives the same bytes. Files ending in `.gz` are packed.
"""

import gzip
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sonorant.core.errors import DataError
from sonorant.core.files import atomic_write
from sonorant.lm.tables import SPECIAL, Level, levels_from_ids, unpack

__all__ = ["read_arpa", "write_arpa"]

_LN10 = float(np.log(10))
_LINES = 200_000
"""Lines put together at a time."""
_MISSING_UNKNOWN = -100.0
"""Base-10 probability of <unk> where the file has none, as in KenLM."""


def write_arpa(path: str | Path, words: Sequence[str], levels: Sequence[Level]) -> None:
    """Writes the model, atomically."""
    with atomic_write(path) as raw:
        if str(path).endswith(".gz"):
            # no name and no time inside: the same model gives the same bytes
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed:
                _write(packed.write, words, levels)
        else:
            _write(raw.write, words, levels)


def _write(write: Callable[[bytes], object], words: Sequence[str], levels: Sequence[Level]) -> None:
    header = ["\\data\\", *(f"ngram {order}={len(level)}" for order, level in enumerate(levels, 1))]
    write(("\n".join(header) + "\n").encode())
    keys = [level.keys for level in levels]
    for order, level in enumerate(levels, 1):
        write(f"\n\\{order}-grams:\n".encode())
        for start in range(0, len(level), _LINES):
            stop = min(start + _LINES, len(level))
            rows = unpack(keys, order, len(words), np.arange(start, stop)).tolist()
            texts = [" ".join([words[index] for index in row]) for row in rows]
            probs = (level.log_probs[start:stop] / _LN10).tolist()
            if order < len(levels):
                backoffs = (level.backoffs[start:stop] / _LN10).tolist()
                lines = [f"{p:.8g}\t{t}\t{b:.8g}\n" for p, t, b in zip(probs, texts, backoffs, strict=True)]
            else:
                lines = [f"{p:.8g}\t{t}\n" for p, t in zip(probs, texts, strict=True)]
            write("".join(lines).encode())
    write(b"\n\\end\\\n")


def read_arpa(path: str | Path) -> tuple[tuple[str, ...], list[Level]]:
    """Words and levels of an ARPA file; raises `DataError` naming the line that is not as it should be."""
    path = Path(path)
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as raw:
        lines = enumerate(io.TextIOWrapper(raw, encoding="utf-8", newline="\n"), 1)  # type: ignore[arg-type]
        try:
            return _parse(lines, path)
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8: {error}") from error


def _parse(lines: Iterator[tuple[int, str]], path: Path) -> tuple[tuple[str, ...], list[Level]]:
    counts = _header(lines, path)
    words: dict[str, int] = {word: index for index, word in enumerate(SPECIAL)}
    ids, probs, backoffs = [], [], []
    for order, count in enumerate(counts, 1):
        rows, order_probs, order_backoffs = _section(lines, path, order, count, words)
        if order == 1:
            missing = sorted(set(range(len(SPECIAL))) - set(rows[:, 0].tolist()))
            rows = np.concatenate([rows, np.array(missing, dtype=np.int64).reshape(-1, 1)])
            order_probs = np.concatenate([order_probs, np.full(len(missing), _MISSING_UNKNOWN)])
            order_backoffs = np.concatenate([order_backoffs, np.zeros(len(missing))])
        ids.append(rows)
        probs.append(order_probs * _LN10)
        backoffs.append(order_backoffs * _LN10)
    try:
        levels, _ = levels_from_ids(ids, probs, backoffs, len(words))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return tuple(words), levels


def _header(lines: Iterable[tuple[int, str]], path: Path) -> list[int]:
    """How many n-grams of each order the file announces; stops after the blank line."""
    counts: list[int] = []
    inside = False
    for number, line in lines:
        text = line.strip()
        if text == "\\data\\":
            inside = True
        elif inside and text.startswith("ngram "):
            order, _, count = text[6:].partition("=")
            if order.strip() != str(len(counts) + 1) or not count.strip().isdigit():
                raise DataError(f"{path}, line {number}: 'ngram {len(counts) + 1}=…' is due, got {text!r}")
            counts.append(int(count))
        elif counts and not text:
            return counts
    raise DataError(f"{path} is no ARPA file: it has no \\data\\ section with counts")


def _section(
    lines: Iterable[tuple[int, str]], path: Path, order: int, count: int, words: dict[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of word ids, base-10 probabilities and back-off weights of one order."""
    rows = np.empty((count, order), dtype=np.int64)
    probs, backoffs = np.empty(count), np.zeros(count)
    found, begun = 0, False
    for number, line in lines:
        fields = line.split()
        if not fields:
            if begun and found == count:
                break
            continue
        if fields[0].startswith("\\") and len(fields) == 1:
            if begun or fields[0] != f"\\{order}-grams:":
                raise DataError(f"{path}, line {number}: {found} of {count} {order}-grams came before {fields[0]!r}")
            begun = True
            if count == 0:
                break
            continue
        if not begun or found == count or not order + 1 <= len(fields) <= order + 2:
            raise DataError(f"{path}, line {number}: no entry of the {count} {order}-grams: {line.strip()!r}")
        try:
            probs[found] = float(fields[0])
            backoffs[found] = float(fields[order + 1]) if len(fields) > order + 1 else 0.0
            entry = fields[1 : order + 1]
            rows[found] = [words.setdefault(w, len(words)) for w in entry] if order == 1 else [words[w] for w in entry]
        except ValueError:
            raise DataError(f"{path}, line {number}: not a number in {line.strip()!r}") from None
        except KeyError as error:
            raise DataError(f"{path}, line {number}: {error} is not among the 1-grams") from None
        found += 1
    if found < count:
        raise DataError(f"{path} ends after {found} of {count} {order}-grams; it was cut off")
    return rows, probs, backoffs
