"""Smaller models by relative entropy (Stolcke 1998, arXiv:cs/0006025)."""

import numpy as np

from sonorant.core.config import at_least
from sonorant.lm.ngram import NGram
from sonorant.lm.renormalise import left_over, lower_probs, renormalise
from sonorant.lm.tables import BEGIN, END, Level

__all__ = ["prune"]


def prune(model: NGram, threshold: float) -> NGram:
    """Drops the n-grams (from order 2 on) whose loss changes the model's perplexity by less than `threshold`, relative
    to it, each taken alone (1e-8 is mild, 1e-6 strong); back-off weights are made anew.

    An n-gram stays while a longer kept one begins with it. p(h) is the model's own probability of the words of h, <s>
    being given that of </s>. Kneser–Ney's lower orders are made for backing off and know frequencies badly, so pruning
    costs such a model more than others (Chelba et al. 2010, https://doi.org/10.21437/Interspeech.2010-637).
    """
    at_least("threshold", threshold, 0)
    num_words = len(model.words)
    joint = _joint(model)
    kept = [np.ones(len(level), dtype=bool) for level in model.levels]
    for order in range(model.order, 1, -1):
        level = model.levels[order - 1]
        kept[order - 1] = _loss(model, order, joint[order - 2]) >= threshold
        if order < model.order:
            above = model.levels[order].keys[kept[order]] // num_words
            kept[order - 1] |= np.bincount(above, minlength=len(level)) > 0
    return NGram(model.words, renormalise(model.words, _compress(model, kept)), model.discounts)


def _joint(model: NGram) -> list[np.ndarray]:
    """Log-probability of all words of each n-gram, for every order."""
    first = model.levels[0].log_probs.copy()
    first[BEGIN] = first[END]
    result = [first]
    for level in model.levels[1:]:
        result.append(result[-1][level.keys // len(model.words)] + level.log_probs)
    return result


def _loss(model: NGram, order: int, history_log_probs: np.ndarray) -> np.ndarray:
    """Relative change of perplexity, exp(D) − 1, if each n-gram of an order were dropped (Stolcke's eq. 4 to 6)."""
    num_words = len(model.words)
    level, below = model.levels[order - 1], lower_probs(model.words, model.levels, order)
    mine, lower = left_over(model.levels, order, below, num_words)
    histories = level.keys // num_words
    log_alpha = model.levels[order - 2].backoffs[histories]
    probs = np.exp(level.log_probs)
    mine, lower = np.maximum(mine, 0)[histories], np.maximum(lower, 0)[histories]
    new_log_alpha = np.log(mine + probs) - np.log(lower + below)
    own = probs * (np.log(below) + new_log_alpha - level.log_probs)
    others = mine * (new_log_alpha - log_alpha)
    return np.expm1(-np.exp(history_log_probs[histories]) * (own + others))


def _compress(model: NGram, kept: list[np.ndarray]) -> list[Level]:
    """Levels of what is kept, histories renumbered."""
    num_words = len(model.words)
    levels: list[Level] = []
    new_index = np.arange(num_words)
    for order, (level, mask) in enumerate(zip(model.levels, kept, strict=True), 1):
        keys = level.keys[mask]
        if order > 1:
            histories, words = np.divmod(keys, num_words)
            keys = new_index[histories] * num_words + words
        levels.append(Level(keys, level.log_probs[mask].copy(), level.backoffs[mask].copy()))
        new_index = np.cumsum(mask) - 1
    return levels
