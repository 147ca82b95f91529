"""MAPSSWE: the matched-pairs test on segments within utterances (Gillick & Cox 1989,
https://doi.org/10.1109/ICASSP.1989.266481), as NIST's scoring tools use it.

Errors within an utterance hang together; a run of words that both systems get right parts them. So the text is cut where
`buffer` or more words in a row are right in both, the errors of each system are counted in each segment, and the mean
difference is tested as normal.
"""

from collections.abc import Hashable, Iterable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from sonorant.core.errors import DataError
from sonorant.metrics.edit import align

__all__ = ["MatchedPairs", "error_segments", "mapsswe"]

Symbols = Sequence[Hashable]


class MatchedPairs(NamedTuple):
    """Outcome of MAPSSWE."""

    difference: float
    """Mean over segments of errors of A minus errors of B; negative: A is better."""
    z: float
    p_value: float
    """Two-sided."""
    num_segments: int


def _errors_by_place(reference: Symbols, hypothesis: Symbols) -> np.ndarray:
    """Errors at 2n + 1 places: odd ones are the n reference symbols, even ones the gaps around them."""
    errors = np.zeros(2 * len(reference) + 1, dtype=np.int64)
    gap = 0
    for pair in align(reference, hypothesis):
        if pair.reference is None:
            errors[gap] += 1
        else:
            errors[2 * pair.reference + 1] += pair.kind != "hit"
            gap = 2 * pair.reference + 2
    return errors


def error_segments(
    reference: Symbols, hypothesis_a: Symbols, hypothesis_b: Symbols, *, buffer: int = 2
) -> list[tuple[int, int]]:
    """Errors of A and of B in each segment of one utterance; segments without an error of either are left out.

    >>> error_segments("a b c d e".split(), "x b c d".split(), "a b c d e f".split())
    [(1, 0), (1, 1)]
    """
    a, b = _errors_by_place(reference, hypothesis_a), _errors_by_place(reference, hypothesis_b)
    places = np.flatnonzero(a + b)
    if len(places) == 0:
        return []
    # Right words between two places in error: all reference words (odd places) strictly between them.
    right_between = places[1:] // 2 - (places[:-1] + 1) // 2
    starts = np.concatenate([[0], np.flatnonzero(right_between >= buffer) + 1])
    sums_a, sums_b = np.add.reduceat(a[places], starts), np.add.reduceat(b[places], starts)
    return [(int(left), int(right)) for left, right in zip(sums_a, sums_b, strict=True)]


def mapsswe(triples: Iterable[tuple[Symbols, Symbols, Symbols]], *, buffer: int = 2) -> MatchedPairs:
    """Tests two systems on (reference, hypothesis of A, hypothesis of B) of each utterance, as sequences of words.

    The normal approximation wants some dozens of segments. Without any difference the p-value is 1. Raises `DataError`
    where there is no utterance.
    """
    segments: list[tuple[int, int]] = []
    num_utterances = 0
    for reference, hypothesis_a, hypothesis_b in triples:
        num_utterances += 1
        segments += error_segments(reference, hypothesis_a, hypothesis_b, buffer=buffer)
    if not num_utterances:
        raise DataError("a matched-pairs test needs utterances, got none")
    differences = np.array([left - right for left, right in segments], dtype=np.float64)
    if len(differences) < 2 or not differences.any():
        mean = float(differences.mean()) if len(differences) else 0.0
        return MatchedPairs(mean, 0.0, 1.0, len(segments))
    mean, deviation = float(differences.mean()), float(differences.std(ddof=1))
    if deviation == 0:  # every segment differs by the same amount: as sure as it can be
        return MatchedPairs(mean, float(np.copysign(np.inf, mean)), 0.0, len(segments))
    z = mean / (deviation / len(differences) ** 0.5)
    return MatchedPairs(mean, z, 2 * NormalDist().cdf(-abs(z)), len(segments))
