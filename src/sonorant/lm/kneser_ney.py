"""Interpolated modified Kneser–Ney smoothing (Chen & Goodman 1998, TR-10-98, section 4.1.6 and eq. 26–27).

The conventions are those of Heafield et al. 2013 (https://aclanthology.org/P13-2121): lower orders count the different
words before an n-gram, except after <s>, where nothing precedes and plain counts are taken; unigrams are interpolated with
the uniform distribution over the vocabulary with </s> and <unk> but without <s>, which is never predicted.

Three discounts an order, D1, D2 and D3+, come from the counts of counts n1 … n4 of that order:
Y = n1 / (n1 + 2 n2), Dk = k − (k + 1) Y n(k+1) / nk. Tiny or artificial texts may lack one of n1 … n4 or give a discount
outside [0, k]; then the order falls back, in this sequence, to one discount Y for all (plain Kneser–Ney) where n1 and n2
are there, else to 0.5, 1 and 1.5. What was used is kept in the model as `discounts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sonorant.core.errors import ConfigError
from sonorant.lm.counting import CountedLevel
from sonorant.lm.tables import BEGIN, Level, find

__all__ = ["FALLBACK", "Discounts", "estimate", "modified_discounts"]

Discounts = tuple[float, float, float]
FALLBACK: Discounts = (0.5, 1.0, 1.5)

LOG_ZERO = -99 * float(np.log(10))
"""Log-probability of <s>, which is never predicted: ARPA's -99."""


@dataclass
class _Order:
    """One order on its way: what Kneser–Ney asks of its n-grams."""

    histories: Int[np.ndarray, " ngram"]
    words: Int[np.ndarray, " ngram"]
    suffixes: Int[np.ndarray, " ngram"]
    """Index, one order below, of the n-gram without its first word."""
    raw: Int[np.ndarray, " ngram"]
    adjusted: Int[np.ndarray, " ngram"]


def modified_discounts(adjusted: Int[np.ndarray, " ngram"]) -> Discounts:
    """D1, D2 and D3+ of one order from its counts, or the fallback (see the module's docstring).

    >>> modified_discounts(np.repeat([1, 2, 3, 4], [40, 20, 10, 5]))
    (0.5, 1.25, 2.0)
    """
    seen = np.bincount(np.minimum(adjusted, 5), minlength=6)[1:5].astype(float).tolist()
    if seen[0] == 0 or seen[1] == 0:
        return FALLBACK
    y = seen[0] / (seen[0] + 2 * seen[1])
    if all(seen):
        found = [k - (k + 1) * y * seen[k] / seen[k - 1] for k in (1, 2, 3)]
        if all(0 <= discount <= k for k, discount in enumerate(found, 1)):
            return found[0], found[1], found[2]
    return y, y, y


def estimate(
    counted: Sequence[CountedLevel], *, discounts: Sequence[Discounts | None] | None = None, cutoffs: Sequence[int] = ()
) -> tuple[list[Level], list[Discounts]]:
    """Levels of the model, and the discounts of each order.

    `discounts` gives them instead of estimating (None: estimate). `cutoffs` drops n-grams that occur at most so often,
    from order 2 on; their mass goes to the lower order. Cut-offs must not fall with the order, so that whatever an n-gram
    begins or ends with is kept too.
    """
    num_words = len(counted[0].keys)
    limits = [0, *cutoffs, *[cutoffs[-1] if cutoffs else 0] * len(counted)][: len(counted)]
    if sorted(limits) != limits or min(limits) < 0:
        raise ConfigError(f"cutoffs must be at least 0 and must not fall with the order, got {list(cutoffs)}")
    orders = _orders(counted, num_words)
    used = [
        (discounts[index] if discounts and index < len(discounts) else None) or modified_discounts(_predicted(order))
        for index, order in enumerate(orders)
    ]
    levels: list[Level] = []
    lower, kept_below, new_index = np.empty(0), np.empty(0, dtype=bool), np.empty(0, dtype=np.int64)
    for index, order in enumerate(orders):
        kept = order.raw > limits[index] if index else np.ones(num_words, dtype=bool)
        num_histories = len(orders[index - 1].raw) if index else 1
        probs, weights = _interpolate(order, kept, used[index], lower, num_histories)
        if levels:  # what this order leaves to the one below is stored with the history
            levels[-1].backoffs[:] = np.log(weights[kept_below])
        keys = (
            new_index[order.histories[kept]] * num_words + order.words[kept] if index else order.words.astype(np.int64)
        )
        levels.append(Level(keys, _safe_log(probs[kept]), np.zeros(int(kept.sum()))))
        lower, kept_below, new_index = probs, kept, np.cumsum(kept) - 1
    levels[0].log_probs[BEGIN] = LOG_ZERO
    return levels, used


def _safe_log(probs: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(probs), LOG_ZERO)


def _orders(counted: Sequence[CountedLevel], num_words: int) -> list[_Order]:
    """Counts of each order with its suffixes, adjusted from the order above."""
    result: list[_Order] = []
    first_words: np.ndarray = counted[0].keys
    after_begin = [first_words == BEGIN]
    for index, level in enumerate(counted):
        if index == 0:
            histories, words = np.zeros(num_words, dtype=np.int64), level.keys
            suffixes = histories
        else:
            histories, words = np.divmod(level.keys, num_words)
            below = result[-1]
            suffixes = (
                words
                if index == 1
                else find(counted[index - 1].keys, below.suffixes[histories].astype(np.int64) * num_words + words)
            )
            preceding = np.bincount(suffixes, minlength=len(below.raw))
            below.adjusted = _narrow(np.where(after_begin[-1], below.raw, preceding))
            after_begin.append(after_begin[-1][histories])
        counts = _narrow(level.counts)
        result.append(_Order(_narrow(histories), _narrow(words), _narrow(suffixes), counts, counts))
    result[0].adjusted = result[0].adjusted.copy()
    result[0].adjusted[BEGIN] = 0
    return result


def _narrow(values: np.ndarray) -> np.ndarray:
    """In 32 bits where that holds them: these arrays are most of what training keeps in memory."""
    return values.astype(np.int32) if len(values) and values.max() < 2**31 else values


def _predicted(order: _Order) -> np.ndarray:
    return order.adjusted[order.adjusted > 0]


def _interpolate(
    order: _Order, kept: np.ndarray, discounts: Discounts, lower: Float[np.ndarray, " below"], num_histories: int
) -> tuple[Float[np.ndarray, " ngram"], Float[np.ndarray, " history"]]:
    """p(word | history), and for each history what its lower order is scaled by.

    p = (a − D(a)) / Σ a + γ p_lower, with γ = 1 − Σ_kept (a − D(a)) / Σ a: the discounts, and all that was cut off. What
    comes out for n-grams that are not kept means nothing.
    """
    taken = np.array([0.0, *discounts])[np.minimum(order.adjusted, 3)]
    discounted = np.where(kept, order.adjusted - taken, 0.0)
    totals = np.bincount(order.histories, weights=order.adjusted, minlength=num_histories)
    given = np.bincount(order.histories, weights=discounted, minlength=num_histories)
    unseen = totals == 0
    totals[unseen] = 1.0
    # 1e-30: discounts of 0 leave nothing to the lower order, and nothing has no logarithm
    weights = np.where(unseen, 1.0, np.maximum(1 - given / totals, 1e-30))
    share = discounted / totals[order.histories]
    if len(lower) == 0:
        return share + weights[0] / (len(order.words) - 1), weights
    return share + weights[order.histories] * lower[order.suffixes], weights
