"""Intervals by the bootstrap, and tests of whether one system is better than another.

A metric that is a function of sums over utterances (error rates, accuracies, F1) is bootstrapped by resampling the rows of
its table of summands: one matrix product a block of resamples, no loop over utterances. Where utterances of a speaker are
alike, resample speakers (`groups`): the interval is else too narrow.

Read `bootstrap_sums` first. Paired tests on per-utterance errors: `paired_bootstrap` (Bisani & Ney 2004,
https://doi.org/10.1109/ICASSP.2004.1326009), `approximate_randomisation` (Noreen 1989); on segments within utterances:
`mapsswe` in `matched_pairs.py`.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import DataError

__all__ = [
    "Comparison",
    "Interval",
    "approximate_randomisation",
    "bootstrap_interval",
    "bootstrap_statistic",
    "bootstrap_sums",
    "paired_bootstrap",
]

_BLOCK = 4_000_000
"""Numbers drawn at a time: bounds memory to about 64 MB."""

Method = Literal["percentile", "bca"]
Statistic = Callable[[np.ndarray], np.ndarray]


class Interval(NamedTuple):
    low: float
    high: float


class Comparison(NamedTuple):
    """System A against system B on the same utterances; negative differences speak for A where errors are counted."""

    difference: float
    """Rate of A minus rate of B."""
    low: float
    """Ends of the interval of the difference."""
    high: float
    p_value: float
    """Two-sided, of the hypothesis that there is no difference."""
    improved: float
    """Share of resamples in which A has the lower rate (Bisani & Ney's probability of improvement), ties half."""


def _matrix(rows: ArrayLike, groups: Sequence[Hashable] | None) -> np.ndarray:
    """Summands `(item, k)`, or `(group, k)` summed within groups; sorted, so that the order in which items arrived does
    not change what is drawn."""
    table = np.asarray(rows, dtype=np.float64)
    if len(table) == 0:
        raise DataError("a bootstrap needs at least one item, got none")
    if groups is None:
        return table[np.lexsort(table.T)]
    if len(groups) != len(table):
        raise ValueError(f"groups must name each item's group, got {len(groups)} names for {len(table)} items")
    ids: dict[Hashable, int] = {}
    index = np.array([ids.setdefault(group, len(ids)) for group in groups])
    summed = np.zeros((len(ids), table.shape[1]))
    np.add.at(summed, index, table)
    return summed[np.lexsort(summed.T)]


def bootstrap_sums(
    table: Float[np.ndarray, "item sum"], num_resamples: int, seed: int
) -> Iterator[Float[np.ndarray, "resample sum"]]:
    """Column sums of `table` with its rows drawn with replacement, in blocks; `num_resamples` of them in all."""
    generator = np.random.default_rng(seed)
    num_items = len(table)
    block = max(1, _BLOCK // num_items)
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        drawn = generator.integers(0, num_items, (size, num_items), dtype=np.int32)
        # how often each row was drawn, then one product
        drawn += (np.arange(size, dtype=np.int64) * num_items)[:, None].astype(np.int32)
        counts = np.bincount(drawn.ravel(), minlength=size * num_items).reshape(size, num_items)
        yield counts.astype(np.float64) @ table


def bootstrap_statistic(
    rows: ArrayLike,
    statistic: Statistic,
    *,
    level: float = 0.95,
    num_resamples: int = 1000,
    groups: Sequence[Hashable] | None = None,
    method: Method = "percentile",
    seed: int = 0,
) -> Interval:
    """Interval of `statistic(sums)`, a function of column sums of `rows (item, k)`: `(resample, k)` → `(resample)`.

    `method`: "percentile" (Efron 1979), or "bca": corrected for bias and skewness (Efron 1987,
    https://doi.org/10.2307/2289144), better with few or very uneven items. Resamples whose statistic is not a number
    (an empty denominator) are left out; with one item both ends are the value. The value always lies inside.
    """
    within("level", level, 0, 1)
    at_least("num_resamples", num_resamples, 1)
    one_of("method", method, ("percentile", "bca"))
    table = _matrix(rows, groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(table.sum(axis=0, keepdims=True))[0])
        drawn = np.concatenate([statistic(sums) for sums in bootstrap_sums(table, num_resamples, seed)])
        leave_one_out = statistic(table.sum(axis=0) - table) if method == "bca" else None
    drawn = drawn[np.isfinite(drawn)]
    if len(table) == 1 or len(drawn) == 0 or not np.isfinite(value):
        return Interval(value, value)
    tails = ((1 - level) / 2, (1 + level) / 2)
    if leave_one_out is not None:
        tails = _corrected(tails, value, drawn, leave_one_out)
    low, high = np.quantile(drawn, tails)
    return Interval(min(float(low), value), max(float(high), value))


def _corrected(
    tails: tuple[float, float], value: float, drawn: np.ndarray, leave_one_out: np.ndarray
) -> tuple[float, float]:
    """BCa: quantiles at which to read the resamples instead of `tails` (Efron 1987, eq. 2.3 and 6.6)."""
    normal = NormalDist()
    # ties (discrete counts) half below; a share of 0 or 1 would be infinite
    below = (np.mean(drawn < value) + np.mean(drawn <= value)) / 2
    bias = normal.inv_cdf(float(np.clip(below, 1 / (len(drawn) + 1), 1 - 1 / (len(drawn) + 1))))
    centred = np.mean(leave_one_out[np.isfinite(leave_one_out)]) - leave_one_out[np.isfinite(leave_one_out)]
    spread = float((centred**2).sum())
    skew = float((centred**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0

    def read_at(tail: float) -> float:
        z = bias + normal.inv_cdf(tail)
        return normal.cdf(bias + z / max(1 - skew * z, 1e-6))

    return read_at(tails[0]), read_at(tails[1])


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def bootstrap_interval(
    numerators: ArrayLike,
    denominators: ArrayLike,
    *,
    level: float = 0.95,
    num_resamples: int = 1000,
    groups: Sequence[Hashable] | None = None,
    method: Method = "percentile",
    seed: int = 0,
) -> Interval:
    """Interval of Σ numerators / Σ denominators over items, such as edits over reference words.

    >>> errors = [1, 0, 2, 0, 1, 3, 0, 0, 1, 2] * 10
    >>> low, high = bootstrap_interval(errors, [10] * 100)
    >>> bool(0.07 < low < 0.1 < high < 0.13)
    True
    """
    rows = np.stack([np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)], axis=1)
    return bootstrap_statistic(
        rows, _ratio, level=level, num_resamples=num_resamples, groups=groups, method=method, seed=seed
    )


def paired_bootstrap(
    errors_a: ArrayLike,
    errors_b: ArrayLike,
    lengths: ArrayLike,
    *,
    level: float = 0.95,
    num_resamples: int = 10_000,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compares two systems' errors on the same utterances by resampling utterances for both at once.

    `lengths`: reference symbols of each utterance. The p-value is twice the smaller share of resamples on either side of
    zero, with one added to count and total, so it is never 0.
    """
    a, b, total = (np.asarray(values, dtype=np.float64) for values in (errors_a, errors_b, lengths))
    if not len(a) == len(b) == len(total):
        raise ValueError(
            f"both systems must score the same utterances, got {len(a)}, {len(b)} and {len(total)} lengths"
        )
    table = _matrix(np.stack([a - b, total], axis=1), groups)
    difference = float((a - b).sum() / total.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = np.concatenate([_ratio(sums) for sums in bootstrap_sums(table, num_resamples, seed)])
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, ((1 - level) / 2, (1 + level) / 2))
    sides = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p_value = min(1.0, 2 * (sides + 1) / (len(drawn) + 1))
    improved = float((drawn < 0).mean() + (drawn == 0).mean() / 2)
    return Comparison(difference, min(float(low), difference), max(float(high), difference), p_value, improved)


def approximate_randomisation(
    errors_a: ArrayLike,
    errors_b: ArrayLike,
    *,
    num_resamples: int = 10_000,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> float:
    """Two-sided p-value of equal systems: how often swapping A and B at random on each utterance (or group) makes the
    difference of total errors at least as large as it is.

    >>> approximate_randomisation([1, 2, 0, 3], [1, 2, 0, 3])
    1.0
    """
    a, b = np.asarray(errors_a, dtype=np.float64), np.asarray(errors_b, dtype=np.float64)
    if len(a) != len(b):
        raise ValueError(f"both systems must score the same utterances, got {len(a)} and {len(b)}")
    differences = _matrix((a - b)[:, None], groups)[:, 0]
    differences = differences[differences != 0]  # swapping equal errors changes nothing
    observed = abs(differences.sum())
    generator = np.random.default_rng(seed)
    at_least_as_large = 0
    block = max(1, _BLOCK // max(len(differences), 1))
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        signs = generator.integers(0, 2, (size, len(differences)), dtype=np.int8).astype(np.float64) * 2 - 1
        at_least_as_large += int((np.abs(signs @ differences) >= observed - 1e-9).sum())
    return (at_least_as_large + 1) / (num_resamples + 1)
