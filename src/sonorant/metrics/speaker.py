"""Verification: equal error rate and minimum detection cost from trial scores."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from sonorant.core.config import within
from sonorant.core.errors import DataError
from sonorant.core.types import Score

__all__ = ["DetectionCurve", "EqualErrorRate", "detection_curve", "eer", "min_dcf"]


class DetectionCurve(NamedTuple):
    """Rates when a trial is accepted at `threshold` or above, by rising threshold."""

    miss_rate: Float[np.ndarray, " point"]
    false_alarm_rate: Float[np.ndarray, " point"]
    threshold: Float[np.ndarray, " point"]


def detection_curve(scores: ArrayLike, is_target: ArrayLike) -> DetectionCurve:
    """One point for each distinct score and one above all. Raises `DataError` unless both kinds of trial are there."""
    values, targets = np.asarray(scores, dtype=np.float64), np.asarray(is_target).astype(bool)
    if values.shape != targets.shape or values.ndim != 1:
        raise DataError(f"each trial has one score and one label, got shapes {values.shape} and {targets.shape}")
    if not np.isfinite(values).all():
        raise DataError(f"{int((~np.isfinite(values)).sum())} trial scores are not finite")
    if targets.all() or not targets.any():
        raise DataError(f"target and non-target trials are both needed, got {int(targets.sum())} of {len(targets)}")
    order = np.argsort(values, kind="stable")
    values, targets = values[order], targets[order]
    first = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))  # tied scores move together
    missed = np.concatenate([[0], np.cumsum(targets)])
    refused = np.concatenate([[0], np.cumsum(~targets)])
    points = np.concatenate([first, [len(values)]])
    thresholds = np.concatenate([values[first], [np.inf]])
    return DetectionCurve(missed[points] / missed[-1], 1 - refused[points] / refused[-1], thresholds)


def eer(scores: ArrayLike, is_target: ArrayLike) -> float:
    """Where misses and false alarms are equally frequent, by linear interpolation between the two nearest points.

    >>> eer([0.9, 0.8, 0.3, 0.7, 0.2, 0.1], [1, 1, 1, 0, 0, 0])
    0.3333333333333333
    """
    curve = detection_curve(scores, is_target)
    gap = curve.miss_rate - curve.false_alarm_rate  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    before = after - 1
    share = -gap[before] / (gap[after] - gap[before])
    return float(curve.miss_rate[before] + share * (curve.miss_rate[after] - curve.miss_rate[before]))


def min_dcf(
    scores: ArrayLike, is_target: ArrayLike, *, target_prob: float = 0.01, miss_cost: float = 1, alarm_cost: float = 1
) -> float:
    """Smallest detection cost over all thresholds, over that of the better constant answer (NIST SRE)."""
    within("target_prob", target_prob, 0, 1)
    curve = detection_curve(scores, is_target)
    miss, alarm = miss_cost * target_prob, alarm_cost * (1 - target_prob)
    return float((miss * curve.miss_rate + alarm * curve.false_alarm_rate).min() / min(miss, alarm))


class EqualErrorRate:
    """Metric: equal error rate of trials, with a bootstrap interval over trials (targets and others apart)."""

    def __init__(self, name: str = "eer", *, level: float = 0.95, num_resamples: int = 200, seed: int = 0) -> None:
        self.name, self.level, self.num_resamples, self.seed = name, level, num_resamples, seed
        self._targets: list[bool] = []
        self._scores: list[float] = []

    def update(
        self, reference: int | Sequence[int] | np.ndarray, hypothesis: float | Sequence[float] | np.ndarray
    ) -> None:
        """Adds trials: `reference` 1 where both sides are the same speaker, else 0; `hypothesis` the score."""
        targets, scores = np.asarray(reference).reshape(-1), np.asarray(hypothesis).reshape(-1)
        if len(targets) != len(scores) or targets.dtype == object or scores.dtype == object:
            raise TypeError(f"{self.name}: one score for each trial, got {len(scores)} for {len(targets)}")
        self._targets += targets.astype(bool).tolist()
        self._scores += scores.astype(float).tolist()

    def merge(self, other: "EqualErrorRate") -> None:
        """Adds another's trials."""
        self._targets += other._targets
        self._scores += other._scores

    def score(self) -> Score:
        if not self._scores:
            raise DataError(f"{self.name}: no trial to score")
        targets, scores = np.array(self._targets), np.array(self._scores)
        value = eer(scores, targets)
        # sorted, so that the order of arrival does not change the draws
        positive, negative = np.sort(scores[targets]), np.sort(scores[~targets])
        generator = np.random.default_rng(self.seed)
        labels = np.repeat([True, False], [len(positive), len(negative)])
        drawn = [
            eer(
                np.concatenate([generator.choice(positive, len(positive)), generator.choice(negative, len(negative))]),
                labels,
            )
            for _ in range(self.num_resamples)
        ]
        low, high = np.quantile(drawn, ((1 - self.level) / 2, (1 + self.level) / 2))
        return Score(self.name, value, "lower", min(float(low), value), max(float(high), value), len(scores))
