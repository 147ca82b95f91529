"""Linear mixtures of n-gram models: scored as they are, or merged into one model; weights by EM on held-out text.

p(w | h) = Σ λᵢ pᵢ(w | h). A word that some models know and another does not has probability 0 in the latter, so that the
mixture sums to one over all their words; a word that none knows is <unk> in each.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from sonorant.core.errors import ConfigError, DataError
from sonorant.lm.kneser_ney import LOG_ZERO
from sonorant.lm.ngram import Evaluation, NGram
from sonorant.lm.renormalise import conditional, renormalise
from sonorant.lm.tables import BEGIN, SPECIAL, UNKNOWN, Level, unpack

__all__ = ["Mixture", "interpolate", "mix_weights"]


class Mixture:
    """Models scored side by side: nothing is approximated, at the price of asking each.

    `weights` must be positive and sum to one; equal where not given.
    """

    def __init__(self, models: Sequence[NGram], weights: ArrayLike | None = None) -> None:
        self.models = list(models)
        self.weights = _checked(weights, len(self.models))
        self._known = frozenset(word for model in self.models for word in model.words)

    def token_log_probs(self, words: str | Sequence[str], *, eos: bool = True) -> Float[np.ndarray, " token"]:
        """Log-probability of each word and, with `eos`, of the sentence's end."""
        each = self.each(words, eos=eos)
        return np.log(self.weights @ each)

    def each(self, words: str | Sequence[str], *, eos: bool = True) -> Float[np.ndarray, "model token"]:
        """Probability of each word by each model."""
        split = words.split() if isinstance(words, str) else list(words)
        probs = np.stack([np.exp(model.token_log_probs(split, eos=eos)) for model in self.models])
        for row, model in zip(probs, self.models, strict=True):
            row[[i for i, word in enumerate(split) if word in self._known and word not in model]] = 0.0
        return probs

    def score(self, words: str | Sequence[str], *, eos: bool = True) -> float:
        """Log-probability of one sentence."""
        return float(self.token_log_probs(words, eos=eos).sum())

    def score_sentences(self, sentences: Iterable[str | Sequence[str]]) -> Float[np.ndarray, " sentence"]:
        """Log-probability of each sentence."""
        return np.array([self.score(sentence) for sentence in sentences], dtype=np.float64)

    def evaluate(self, lines: Iterable[str]) -> Evaluation:
        """The mixture on a text, a sentence a line; blank lines are left out."""
        total, tokens, unknown, sentences = 0.0, 0, 0, 0
        for line in filter(str.split, lines):
            log_probs = self.token_log_probs(line)
            total, tokens, sentences = total + float(log_probs.sum()), tokens + len(log_probs), sentences + 1
            unknown += sum(word not in self._known for word in line.split())
        if not sentences:
            raise DataError("no text to evaluate on: every line is blank")
        return Evaluation(total, tokens, unknown, sentences)

    def perplexity(self, lines: Iterable[str]) -> float:
        """Perplexity of a text."""
        return self.evaluate(lines).perplexity


def _checked(weights: ArrayLike | None, count: int) -> np.ndarray:
    if not count:
        raise ConfigError("a mixture needs at least one model, got none")
    result = np.full(count, 1 / count) if weights is None else np.array(weights, dtype=np.float64)
    if len(result) != count or (result < 0).any() or abs(result.sum() - 1) > 1e-6:
        raise ConfigError(f"weights must be {count} numbers of at least 0 that sum to 1, got {result.tolist()}")
    return result / result.sum()


def mix_weights(
    models: Sequence[NGram], lines: Iterable[str], *, tolerance: float = 1e-6, max_steps: int = 200
) -> Float[np.ndarray, " model"]:
    """Weights under which a held-out text is most probable, by expectation maximisation from equal ones.

    Stops when the mean log-probability gains less than `tolerance` a token; each step can only gain. Raises `DataError`
    for an empty text.
    """
    mixture = Mixture(models)
    probs = [mixture.each(line) for line in lines if line.split()]
    if not probs:
        raise DataError("no held-out text to fit weights on: every line is blank")
    table = np.concatenate(probs, axis=1)
    weights, before = mixture.weights, -np.inf
    for _ in range(max_steps):
        shares = weights[:, None] * table
        total = shares.sum(axis=0)
        weights = (shares / total).mean(axis=1)
        now = float(np.log(total).mean())
        if now - before < tolerance:
            break
        before = now
    return weights


def interpolate(models: Sequence[NGram], weights: ArrayLike | None = None) -> NGram:
    """One back-off model with every n-gram of all models, whose probability is the mixture's; back-off weights are made
    so that each history sums to one. It can be written as ARPA; for unstored n-grams it is close to `Mixture`."""
    shares = _checked(weights, len(models))
    words = tuple(dict.fromkeys([*SPECIAL, *(word for model in models for word in model.words)]))
    ids = {word: index for index, word in enumerate(words)}
    to_union = [np.array([ids[word] for word in model.words]) for model in models]
    keys: list[np.ndarray] = [np.arange(len(words), dtype=np.int64)]
    nodes = list(to_union)  # of each model's n-grams, the index in the union's
    levels = [_level(models, shares, words, to_union, keys)]
    for order in range(2, max(model.order for model in models) + 1):
        longer = [index for index, model in enumerate(models) if model.order >= order]
        mine = {}
        for index in longer:
            histories, last = np.divmod(models[index].levels[order - 1].keys, len(models[index].words))
            mine[index] = nodes[index][histories] * len(words) + to_union[index][last]
        keys.append(np.unique(np.concatenate(list(mine.values()))))
        for index in longer:
            nodes[index] = np.searchsorted(keys[-1], mine[index])
        levels.append(_level(models, shares, words, to_union, keys))
    return NGram(words, renormalise(words, levels))


def _level(
    models: Sequence[NGram],
    shares: np.ndarray,
    words: tuple[str, ...],
    to_union: Sequence[np.ndarray],
    keys: Sequence[np.ndarray],
) -> Level:
    """The union's highest order so far, with the mixture's probabilities."""
    rows = unpack(keys, len(keys), len(words), np.arange(len(keys[-1])))
    probs = np.zeros(len(rows))
    for model, share, mapping in zip(models, shares, to_union, strict=True):
        own = np.full(len(words), -1)
        own[mapping] = np.arange(len(mapping))
        known = own[rows[:, -1]] >= 0
        probs[known] += share * np.exp(conditional(model, np.where(own < 0, UNKNOWN, own)[rows[known]]))
    with np.errstate(divide="ignore"):
        log_probs = np.maximum(np.log(probs), LOG_ZERO)
    if len(keys) == 1:
        log_probs[BEGIN] = LOG_ZERO
    return Level(keys[-1], log_probs, np.zeros(len(rows)))
