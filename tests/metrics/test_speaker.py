from statistics import NormalDist

import numpy as np
import pytest
from tests.contracts.metrics import check_metric

from sonorant.core.errors import DataError
from sonorant.metrics.speaker import EqualErrorRate, detection_curve, eer, min_dcf


def _trials(count: int, distance: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    targets = np.arange(count) % 2 == 0
    return generator.normal(size=count) + distance * targets, targets


def test_contract() -> None:
    scores, targets = _trials(60, 1.5)
    pairs = [(targets[start : start + 10].astype(int), scores[start : start + 10]) for start in range(0, 60, 10)]
    check_metric(EqualErrorRate, pairs, perfect=[([1, 0], [0.9, 0.1]), (1, 0.8)], best=0.0)


def test_two_normals_have_the_known_rate() -> None:
    scores, targets = _trials(200_000, 2.0)
    assert eer(scores, targets) == pytest.approx(NormalDist().cdf(-1.0), abs=0.003)


def test_monotone_maps_change_nothing_and_chance_is_half() -> None:
    scores, targets = _trials(2_000, 1.0)
    assert eer(np.exp(scores), targets) == eer(scores, targets)
    assert min_dcf(np.exp(scores), targets) == min_dcf(scores, targets)
    assert eer(-scores, ~targets) == pytest.approx(eer(scores, targets), abs=1e-9)
    assert eer([1.0] * 10, [1, 0] * 5) == pytest.approx(0.5)


def test_the_curve_counts_what_it_says() -> None:
    scores, targets = _trials(50, 0.5, seed=4)
    scores = np.round(scores, 1)  # ties
    curve = detection_curve(scores, targets)
    for miss, alarm, threshold in zip(*curve, strict=True):
        assert miss == pytest.approx((scores[targets] < threshold).mean())
        assert alarm == pytest.approx((scores[~targets] >= threshold).mean())


def test_cost_is_that_of_the_best_threshold() -> None:
    scores, targets = _trials(400, 1.0)
    costs = [0.05 * (scores[targets] < t).mean() + 0.95 * (scores[~targets] >= t).mean() for t in [*scores, np.inf]]
    assert min_dcf(scores, targets, target_prob=0.05) == pytest.approx(min(costs) / 0.05)
    assert min_dcf(scores * 0, targets) == 1


def test_refusals() -> None:
    with pytest.raises(DataError, match="both needed"):
        eer([1.0, 2.0], [1, 1])
    with pytest.raises(DataError, match="not finite"):
        eer([1.0, np.nan], [1, 0])
