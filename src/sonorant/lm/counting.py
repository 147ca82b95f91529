"""Text → word ids → counted n-grams, in a pass an order, with memory bounded by the n-grams and 12 bytes a word.

`read_corpus` reads lines once; `count_ngrams` counts a block of sentences at a time by sorting packed keys (see
`tables.py`) and merges the blocks.
"""

from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import count

import numpy as np
from jaxtyping import Int

from sonorant.core.config import at_least
from sonorant.core.errors import DataError
from sonorant.lm.tables import BEGIN, END, SPECIAL, UNKNOWN, check_packing, find

__all__ = ["Corpus", "CountedLevel", "count_ngrams", "depths", "read_corpus"]

BLOCK = 4_000_000
"""Words counted at a time."""


@dataclass(frozen=True)
class Corpus:
    """Words as ids, sentences as `<s> … </s>` one after the other."""

    words: tuple[str, ...]
    """Id → word; <unk>, <s>, </s>, then by falling frequency."""
    stream: Int[np.ndarray, " token"]
    num_sentences: int
    num_unknown: int
    """Words outside the vocabulary."""


@dataclass(frozen=True)
class CountedLevel:
    """The n-grams of one order by rising key, and how often each occurs."""

    keys: Int[np.ndarray, " ngram"]
    counts: Int[np.ndarray, " ngram"]


def read_corpus(
    lines: Iterable[str],
    *,
    vocabulary: Collection[str] | None = None,
    max_words: int | None = None,
    min_count: int = 1,
) -> Corpus:
    """Splits lines at white space; blank lines are left out.

    Words that are not in `vocabulary`, occur fewer than `min_count` times, or are not among the `max_words` most frequent
    (ties by code point), become <unk>. A `vocabulary` is taken whole, seen or
    not, and the other two limits are not looked at. Raises `DataError` for an empty corpus
    or a sentence mark inside a line.
    """
    at_least("min_count", min_count, 1)
    ids: defaultdict[str, int] = defaultdict(count().__next__)
    for word in SPECIAL:
        ids[word]
    raw = array("i")
    num_sentences = 0
    for line in lines:
        words = line.split()
        if words:
            raw.append(BEGIN)
            raw.extend(map(ids.__getitem__, words))
            raw.append(END)
            num_sentences += 1
    if not num_sentences:
        raise DataError("no text to count: every line is blank")
    stream = np.frombuffer(raw, dtype=np.int32)
    counts = np.bincount(stream, minlength=len(ids))
    if counts[BEGIN] + counts[END] > 2 * num_sentences:
        raise DataError("the text holds <s> or </s>; they are set around each line and must not stand in it")
    kept = _vocabulary(list(ids), counts, vocabulary, max_words, min_count)
    new_ids = {word: index for index, word in enumerate(kept)}
    mapping = np.array([new_ids.get(word, UNKNOWN) for word in ids], dtype=np.int32)
    stream = mapping[stream]
    return Corpus(tuple(kept), stream, num_sentences, int((stream == UNKNOWN).sum()))


def _vocabulary(
    seen: list[str], counts: np.ndarray, given: Collection[str] | None, max_words: int | None, min_count: int
) -> list[str]:
    frequency = dict(zip(seen, counts.tolist(), strict=True))
    if given is not None:
        return [*SPECIAL, *sorted({*given} - {*SPECIAL}, key=lambda word: (-frequency.get(word, 0), word))]
    frequent = sorted(
        (word for word in seen[len(SPECIAL) :] if frequency[word] >= min_count),
        key=lambda word: (-frequency[word], word),
    )
    return [*SPECIAL, *frequent[:max_words]]


def depths(stream: Int[np.ndarray, " token"]) -> Int[np.ndarray, " token"]:
    """Words between each position and the start of its sentence: an n-gram ends there only where n − 1 ≤ depth."""
    positions = np.arange(len(stream))
    starts = np.where(stream == BEGIN, positions, 0)
    return (positions - np.maximum.accumulate(starts)).astype(np.int32)


def _blocks(stream: np.ndarray, size: int) -> list[tuple[int, int]]:
    """Stretches of about `size` words that start at sentence starts."""
    starts = np.flatnonzero(stream == BEGIN)
    bounds = [0]
    for wanted in range(size, len(stream), size):
        cut = int(starts[min(int(np.searchsorted(starts, wanted)), len(starts) - 1)])
        if cut > bounds[-1]:
            bounds.append(cut)
    return list(zip(bounds, [*bounds[1:], len(stream)], strict=True))


def count_ngrams(
    stream: Int[np.ndarray, " token"], num_words: int, order: int, *, block: int = BLOCK
) -> list[CountedLevel]:
    """Every n-gram of orders 1 to `order` inside sentences; order 1 lists all words, seen or not."""
    at_least("order", order, 1)
    everything = np.bincount(stream, minlength=num_words).astype(np.int64)
    levels = [CountedLevel(np.arange(num_words, dtype=np.int64), everything)]
    depth = depths(stream)
    nodes = stream  # of each position, the index of the n-gram that ends there
    for level in range(2, order + 1):
        check_packing(len(levels[-1].keys), num_words)
        merged = CountedLevel(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        waiting: list[CountedLevel] = []
        for start, stop in _blocks(stream, block):
            keys, _ = _keys(stream, nodes, depth, level, num_words, start, stop)
            waiting.append(CountedLevel(*np.unique(keys, return_counts=True)))
            if sum(len(part.keys) for part in waiting) > len(merged.keys):
                merged, waiting = _merge([merged, *waiting]), []
        levels.append(_merge([merged, *waiting]))
        if level < order:
            following = np.full(len(stream), -1, dtype=np.int32 if len(levels[-1].keys) < 2**31 else np.int64)
            for start, stop in _blocks(stream, block):
                keys, places = _keys(stream, nodes, depth, level, num_words, start, stop)
                following[places] = find(levels[-1].keys, keys)
            nodes = following
    return levels


def _keys(
    stream: np.ndarray, nodes: np.ndarray, depth: np.ndarray, order: int, num_words: int, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray]:
    """Keys of the n-grams that end in a stretch, and where they end."""
    places = start + np.flatnonzero(depth[start:stop] >= order - 1)
    return nodes[places - 1].astype(np.int64) * num_words + stream[places], places


def _merge(parts: list[CountedLevel]) -> CountedLevel:
    parts = [part for part in parts if len(part.keys)]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return CountedLevel(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    keys, counts = np.concatenate([p.keys for p in parts]), np.concatenate([p.counts for p in parts])
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return CountedLevel(keys[first], np.add.reduceat(counts, first))
