"""What every metric must keep. `check_metric(make, pairs, perfect=…, best=…)` can be called by third parties."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import pytest
import torch

from sonorant.core.errors import DataError
from sonorant.core.types import Score


def check_metric(
    make: Callable[[], Any],
    pairs: Sequence[tuple[Any, Any]],
    *,
    perfect: Sequence[tuple[Any, Any]],
    best: float,
) -> None:
    """`pairs` are arguments of `update` with at least one fault among them, `perfect` ones without; `best` is the score
    of the latter."""
    scored = _score(make, pairs)
    _check_form(scored, len(pairs))
    flawless = _score(make, perfect)
    assert flawless.value == pytest.approx(best, abs=1e-12)
    assert scored.better in ("lower", "higher")
    worse = scored.value > best if scored.better == "lower" else scored.value < best
    assert worse, f"{scored} must be worse than {best}: `pairs` hold a fault"
    _same(_score(make, list(pairs)[::-1]), scored, "the order of items must not matter")
    for cut in {1, len(pairs) // 2}:
        left, right = _filled(make, pairs[:cut]), _filled(make, pairs[cut:])
        left.merge(right)
        _same(left.score(), scored, "parts of a test set must add up")
    _same(_score(make, pairs), scored, "the same items must score the same")
    with pytest.raises(DataError, match=scored.name):
        make().score()
    for foreign in (torch.nn.Linear(1, 1), object(), None):
        with pytest.raises((TypeError, DataError)):
            make().update(foreign, foreign)


def _filled(make: Callable[[], Any], pairs: Sequence[tuple[Any, Any]]) -> Any:
    metric = make()
    for reference, hypothesis in pairs:
        metric.update(reference, hypothesis)
    return metric


def _score(make: Callable[[], Any], pairs: Sequence[tuple[Any, Any]]) -> Score:
    metric = _filled(make, pairs)
    first = metric.score()
    _same(metric.score(), first, "asking twice must not change the score")
    return first


def _check_form(score: Score, at_least: int) -> None:
    assert isinstance(score, Score)
    assert score.name
    assert score.num_items >= at_least
    json.dumps(asdict(score))  # plain numbers, no numpy scalars
    assert score.low is not None
    assert score.high is not None
    assert score.low <= score.value <= score.high, "the interval must hold the value"
    assert score.low < score.high, "with several uneven items the interval has a width"


def _same(one: Score, other: Score, why: str) -> None:
    assert (one.name, one.better, one.num_items) == (other.name, other.better, other.num_items), why
    for left, right in ((one.value, other.value), (one.low, other.low), (one.high, other.high)):
        assert left is not None
        assert right is not None
        assert math.isclose(left, right, rel_tol=1e-12, abs_tol=1e-12), f"{why}: {one} and {other}"
