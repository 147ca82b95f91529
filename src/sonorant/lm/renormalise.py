"""Back-off weights that make every history's probabilities sum to one, whatever n-grams are stored.

α(h) = (1 − Σ p(w | h)) / (1 − Σ p(w | h′)), both sums over the words stored after h, h′ being h without its first word.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from sonorant.lm.ngram import NGram
from sonorant.lm.tables import Level, unpack

__all__ = ["conditional", "left_over", "lower_probs", "renormalise"]

_ROWS = 500_000
_SMALLEST = 1e-12
"""Below this what is left over is rounding: a history that has seen every word."""


def conditional(model: NGram, rows: Int[np.ndarray, "ngram word"]) -> Float[np.ndarray, " ngram"]:
    """Log-probability of each row's last word after the words before it, by ids."""
    length = rows.shape[1]
    result = np.empty(len(rows))
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS]
        depth = np.tile(np.arange(length), len(block))
        result[start : start + _ROWS] = model.predict(block.reshape(-1), depth)[length - 1 :: length]
    return result


def lower_probs(words: Sequence[str], levels: Sequence[Level], order: int) -> Float[np.ndarray, " ngram"]:
    """p(w | h′) of every n-gram of an order, by the orders below."""
    lower = NGram(words, levels[: order - 1])
    keys = [level.keys for level in levels[:order]]
    result = np.empty(len(levels[order - 1]))
    for start in range(0, len(result), _ROWS):
        nodes = np.arange(start, min(start + _ROWS, len(result)))
        result[nodes] = np.exp(conditional(lower, unpack(keys, order, len(words), nodes)[:, 1:]))
    return result


def left_over(
    levels: Sequence[Level], order: int, below: Float[np.ndarray, " ngram"], num_words: int
) -> tuple[Float[np.ndarray, " history"], Float[np.ndarray, " history"]]:
    """1 − Σ p(w | h) and 1 − Σ p(w | h′) for each history of an order's n-grams; `below` holds p(w | h′)."""
    level = levels[order - 1]
    # without any n-gram, bincount would count in integers
    histories, size = level.keys // num_words, len(levels[order - 2])
    upper = np.bincount(histories, weights=np.exp(level.log_probs), minlength=size)
    return 1.0 - upper, 1.0 - np.bincount(histories, weights=below, minlength=size)


def renormalise(words: Sequence[str], levels: Sequence[Level]) -> list[Level]:
    """The levels with new back-off weights, from the lowest order up, since each rests on those below."""
    result = [Level(level.keys, level.log_probs, np.zeros(len(level))) for level in levels]
    for order in range(2, len(levels) + 1):
        below = lower_probs(words, result, order)
        mine, lower = left_over(result, order, below, len(words))
        result[order - 2].backoffs[:] = np.log(np.maximum(mine, _SMALLEST) / np.maximum(lower, _SMALLEST))
    return result
