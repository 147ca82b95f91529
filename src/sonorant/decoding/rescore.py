"""N-best rescoring: another model's opinion of complete answers, and the weights that suit a development set.

`score` asks the model once; `tune` then tries any number of weights on the stored scores, for an item's choice is nothing
but the largest of a few weighted sums.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sonorant.core.errors import DataError
from sonorant.decoding.hypothesis import Hypothesis

__all__ = ["Tuned", "num_words", "rescore", "score", "tune"]

NBest = Sequence[Sequence[Hypothesis]]


def num_words(texts: Sequence[str]) -> list[float]:
    """The number of words of each text: weighted, a bonus for each word.

    >>> num_words(["a b", ""])
    [2.0, 0.0]
    """
    return [float(len(text.split())) for text in texts]


def score(nbest: NBest, scorers: Mapping[str, Callable[[Sequence[str]], Sequence[float]]]) -> list[list[Hypothesis]]:
    """The same hypotheses with each scorer's opinion in `parts`; each text is asked for once, all in one call.

    Args:
        nbest: hypotheses of each item.
        scorers: name → function from texts to natural logarithms (or counts), one each.

    Raises:
        DataError: a scorer gave another number of scores than there were texts.
    """
    texts = list(dict.fromkeys(hypothesis.text for item in nbest for hypothesis in item))
    opinions: dict[str, dict[str, float]] = {}
    for name, scorer in scorers.items():
        answers = list(scorer(texts)) if texts else []
        if len(answers) != len(texts):
            raise DataError(f"scorer '{name}' gave {len(answers)} scores for {len(texts)} texts")
        opinions[name] = dict(zip(texts, map(float, answers), strict=True))
    return [
        [replace(h, parts={**h.parts, **{name: known[h.text] for name, known in opinions.items()}}) for h in item]
        for item in nbest
    ]


def rescore(nbest: NBest, weights: Mapping[str, float]) -> list[list[Hypothesis]]:
    """Each item's hypotheses by `score + Σ weight · part`, best first; their `score` is that sum.

    >>> first = Hypothesis((1,), (), -1.0, text="a", parts={"lm": -9.0})
    >>> second = Hypothesis((2,), (), -2.0, text="b", parts={"lm": -1.0})
    >>> [h.text for h in rescore([[first, second]], {"lm": 0.5})[0]]
    ['b', 'a']
    """
    ranked = []
    for item in nbest:
        summed = [replace(h, score=h.score + sum(w * h.parts[name] for name, w in weights.items())) for h in item]
        ranked.append(sorted(summed, key=lambda hypothesis: hypothesis.score, reverse=True))
    return ranked


@dataclass(frozen=True)
class Tuned:
    """The best weights of a grid."""

    weights: Mapping[str, float]
    errors: float
    """Errors that these weights make on the development set."""
    first_errors: float
    """Errors of the first-best answers, before rescoring."""
    oracle_errors: float
    """Errors that the best answer of each item would make: what no weights can fall below."""


def tune(
    nbest: NBest,
    references: Sequence[str],
    errors: Callable[[str, str], float],
    grid: Mapping[str, Sequence[float]],
) -> Tuned:
    """The weights of a grid that make the fewest errors; among equals the smallest ones.

    Args:
        nbest: scored hypotheses of each item of a development set.
        references: what was said in each.
        errors: (reference, hypothesis) → number of errors, word errors say.
        grid: name of a part → weights to be tried.

    Raises:
        DataError: items and references differ in number, or an item has no hypothesis.
    """
    if len(nbest) != len(references):
        raise DataError(f"{len(nbest)} items cannot be tuned on {len(references)} references")
    empty = [index for index, item in enumerate(nbest) if not item]
    if empty:
        raise DataError(f"item {empty[0]} has no hypothesis")
    width = max((len(item) for item in nbest), default=0)
    scores = np.full((len(nbest), width), -np.inf)
    parts = np.zeros((len(grid), len(nbest), width))
    mistakes = np.full((len(nbest), width), np.inf)
    for row, (item, reference) in enumerate(zip(nbest, references, strict=True)):
        for column, hypothesis in enumerate(item):
            scores[row, column] = hypothesis.score
            mistakes[row, column] = errors(reference, hypothesis.text)
            parts[:, row, column] = [hypothesis.parts[name] for name in grid]
    rows = np.arange(len(nbest))
    candidates = sorted(itertools.product(*grid.values()), key=lambda weights: sum(abs(weight) for weight in weights))
    best: tuple[float, tuple[float, ...]] | None = None
    for weights in candidates:
        total = scores + np.tensordot(np.asarray(weights), parts, axes=1)
        made = float(mistakes[rows, total.argmax(1)].sum()) if width else 0.0
        if best is None or made < best[0]:
            best = made, weights
    if best is None:
        raise DataError("the grid holds no weights")
    first = float(mistakes[rows, scores.argmax(1)].sum()) if width else 0.0
    oracle = float(mistakes.min(1).sum()) if width else 0.0
    return Tuned(dict(zip(grid, best[1], strict=True)), best[0], first, oracle)
