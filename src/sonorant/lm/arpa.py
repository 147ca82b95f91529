"""The ARPA format: what every decoder reads. Logarithms to base 10 in the file, natural ones in memory.

Levels are written in the order of their keys, so the same model gives the same bytes. Files ending in `.gz` are packed.
"""

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sonorant.core.errors import DataError
from sonorant.core.files import atomic_write
from sonorant.decoding.arpa import LN10, ArpaText, open_arpa
from sonorant.lm.tables import SPECIAL, Level, levels_from_ids, unpack

__all__ = ["read_arpa", "write_arpa"]

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
            probs = (level.log_probs[start:stop] / LN10).tolist()
            if order < len(levels):
                backoffs = (level.backoffs[start:stop] / LN10).tolist()
                lines = [f"{p:.8g}\t{t}\t{b:.8g}\n" for p, t, b in zip(probs, texts, backoffs, strict=True)]
            else:
                lines = [f"{p:.8g}\t{t}\n" for p, t in zip(probs, texts, strict=True)]
            write("".join(lines).encode())
    write(b"\n\\end\\\n")


def read_arpa(path: str | Path) -> tuple[tuple[str, ...], list[Level]]:
    """Words and levels of an ARPA file; raises `DataError` naming the line that is not as it should be."""
    words: dict[str, int] = {word: index for index, word in enumerate(SPECIAL)}
    ids, probs, backoffs = [], [], []
    with open_arpa(path) as text:
        for order in range(1, len(text.counts) + 1):
            rows, order_probs, order_backoffs = _section(text, order, words)
            if order == 1:
                missing = sorted(set(range(len(SPECIAL))) - set(rows[:, 0].tolist()))
                rows = np.concatenate([rows, np.array(missing, dtype=np.int64).reshape(-1, 1)])
                order_probs = np.concatenate([order_probs, np.full(len(missing), _MISSING_UNKNOWN)])
                order_backoffs = np.concatenate([order_backoffs, np.zeros(len(missing))])
            ids.append(rows)
            probs.append(order_probs * LN10)
            backoffs.append(order_backoffs * LN10)
        text.finish()
    try:
        levels, _ = levels_from_ids(ids, probs, backoffs, len(words))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return tuple(words), levels


def _section(text: ArpaText, order: int, words: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of word ids, base-10 probabilities and back-off weights of one order."""
    count = text.counts[order - 1]
    rows = np.empty((count, order), dtype=np.int64)
    probs, backoffs = np.empty(count), np.empty(count)
    try:
        for place, (prob, entry, backoff) in enumerate(text.entries(order)):
            probs[place], backoffs[place] = prob, backoff
            rows[place] = [words.setdefault(w, len(words)) for w in entry] if order == 1 else [words[w] for w in entry]
    except KeyError as error:
        raise DataError(f"{text.path}, line {text.line}: {error} is not among the 1-grams") from None
    return rows, probs, backoffs
