"""Accuracy, F1 and confusions of single-label classification."""

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int

from sonorant.core.config import one_of
from sonorant.core.errors import DataError
from sonorant.core.types import Score
from sonorant.metrics.bootstrap import bootstrap_statistic

__all__ = ["Accuracy", "F1", "confusion_matrix"]

Labels = Hashable | Sequence[Hashable] | np.ndarray


class _Pairs:
    """Pairs of labels as they arrive, one at a time or as two sequences of equal length."""

    def __init__(self, name: str, level: float, num_resamples: int, seed: int) -> None:
        self.name, self.level, self.num_resamples, self.seed = name, level, num_resamples, seed
        self.references: list[Hashable] = []
        self.hypotheses: list[Hashable] = []

    def add(self, reference: Labels, hypothesis: Labels) -> None:
        references, hypotheses = _labels(reference), _labels(hypothesis)
        if len(references) != len(hypotheses):
            raise DataError(
                f"{self.name}: as many labels must be predicted as given, got {len(hypotheses)} for {len(references)}"
            )
        self.references += references
        self.hypotheses += hypotheses

    def codes(self) -> tuple[np.ndarray, np.ndarray, list[Hashable]]:
        """References and hypotheses as integers, and the labels they stand for."""
        if not self.references:
            raise DataError(f"{self.name}: no item to score; is the test set empty?")
        labels = sorted({*self.references, *self.hypotheses}, key=repr)
        ids = {label: index for index, label in enumerate(labels)}
        references, hypotheses = ([ids[label] for label in side] for side in (self.references, self.hypotheses))
        return np.array(references), np.array(hypotheses), labels


def _labels(value: Labels) -> list[Hashable]:
    if isinstance(value, np.ndarray):
        return list(value.reshape(-1).tolist())
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, (str, int, float, np.integer)):
        return [value]
    raise TypeError(f"labels are strings, numbers, or sequences or arrays of them, got {type(value).__name__}")


class Accuracy:
    """Metric: share of items whose label is right, with a bootstrap interval.

    >>> accuracy = Accuracy()
    >>> accuracy.update(["yes", "no", "no", "yes"], ["yes", "no", "yes", "yes"])
    >>> accuracy.score().value
    0.75
    """

    def __init__(
        self, name: str = "accuracy", *, level: float = 0.95, num_resamples: int = 1000, seed: int = 0
    ) -> None:
        self._pairs = _Pairs(name, level, num_resamples, seed)

    def update(self, reference: Labels, hypothesis: Labels) -> None:
        """Adds one pair of labels, or two sequences of them."""
        self._pairs.add(reference, hypothesis)

    def merge(self, other: "Accuracy") -> None:
        """Adds another's items."""
        self._pairs.add(other._pairs.references, other._pairs.hypotheses)

    def score(self) -> Score:
        pairs = self._pairs
        references, hypotheses, _ = pairs.codes()
        rows = np.stack([references == hypotheses, np.ones(len(references), dtype=bool)], axis=1).astype(np.float64)
        interval = bootstrap_statistic(
            rows, _share, level=pairs.level, num_resamples=pairs.num_resamples, seed=pairs.seed
        )
        return Score(pairs.name, float(rows[:, 0].mean()), "higher", *interval, num_items=len(rows))


def _share(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


class F1:
    """Metric: harmonic mean of precision and recall, with a bootstrap interval.

    `average`: "macro" is the mean over the labels that occur in references or hypotheses; "micro" pools all decisions
    (for single labels it equals accuracy); "positive" is that of the label `positive` alone. A label with neither hits
    nor misses counts 0, as in scikit-learn.
    """

    def __init__(
        self,
        name: str = "f1",
        *,
        average: Literal["macro", "micro", "positive"] = "macro",
        positive: Hashable = None,
        level: float = 0.95,
        num_resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        one_of("average", average, ("macro", "micro", "positive"))
        self.average, self.positive = average, positive
        self._pairs = _Pairs(name, level, num_resamples, seed)

    def update(self, reference: Labels, hypothesis: Labels) -> None:
        """Adds one pair of labels, or two sequences of them."""
        self._pairs.add(reference, hypothesis)

    def merge(self, other: "F1") -> None:
        """Adds another's items."""
        self._pairs.add(other._pairs.references, other._pairs.hypotheses)

    def score(self) -> Score:
        pairs = self._pairs
        references, hypotheses, labels = pairs.codes()
        eye = np.eye(len(labels))
        # for each item and label: hit, given, predicted
        rows = np.concatenate(
            [eye[references] * (references == hypotheses)[:, None], eye[references], eye[hypotheses]], axis=1
        )

        def statistic(sums: np.ndarray) -> np.ndarray:
            hits, given, predicted = np.split(sums, 3, axis=-1)
            if self.average == "micro":
                return 2 * hits.sum(-1) / (given.sum(-1) + predicted.sum(-1))
            both = given + predicted
            each = np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)
            if self.average == "positive":
                return each[..., labels.index(self.positive)] if self.positive in labels else each[..., 0] * 0
            # a label that a resample lacks altogether is not averaged over
            return each.sum(-1) / np.maximum((both > 0).sum(-1), 1)

        interval = bootstrap_statistic(
            rows, statistic, level=pairs.level, num_resamples=pairs.num_resamples, seed=pairs.seed
        )
        return Score(
            pairs.name, float(statistic(rows.sum(axis=0, keepdims=True))[0]), "higher", *interval, num_items=len(rows)
        )


def confusion_matrix(
    references: Sequence[Hashable], hypotheses: Sequence[Hashable], labels: Sequence[Hashable]
) -> Int[np.ndarray, "label label"]:
    """Counts of (given, predicted) in the order of `labels`. Raises `DataError` for a label that is not among them.

    >>> confusion_matrix(["a", "a", "b"], ["a", "b", "b"], ["a", "b"]).tolist()
    [[1, 1], [0, 1]]
    """
    ids = {label: index for index, label in enumerate(labels)}
    unknown = sorted({str(label) for label in [*references, *hypotheses] if label not in ids})
    if unknown:
        raise DataError(f"labels outside the {len(ids)} given ones: {', '.join(unknown[:8])}")
    matrix = np.zeros((len(ids), len(ids)), dtype=np.int64)
    rows, columns = [ids[label] for label in references], [ids[label] for label in hypotheses]
    if len(rows) != len(columns):
        raise DataError(f"as many labels must be predicted as given, got {len(columns)} for {len(rows)}")
    np.add.at(matrix, (rows, columns), 1)
    return matrix
