import numpy as np
import pytest

from sonorant.core.errors import DataError
from sonorant.metrics.similarity import Moments, canonical_correlations, linear_cka, pwcca

DRAWS = np.random.default_rng(3)


def pair(frames: int = 400) -> tuple[np.ndarray, np.ndarray]:
    x = DRAWS.normal(size=(frames, 6)) @ np.diag([5, 3, 2, 1, 1, 0.5])
    return x, np.tanh(x @ DRAWS.normal(size=(6, 8))) + 0.3 * DRAWS.normal(size=(frames, 8)) + 4.0


def test_alignment_is_its_kernel_form() -> None:
    x, y = pair()
    centre = np.eye(len(x)) - 1 / len(x)
    kx, ky = (centre @ side @ side.T @ centre for side in (x, y))
    assert linear_cka(x, y) == pytest.approx((kx * ky).sum() / np.sqrt((kx * kx).sum() * (ky * ky).sum()))


def test_correlations_are_those_of_the_projected_sides() -> None:
    x, y = pair()
    orthogonal = [np.linalg.qr(side - side.mean(0))[0] for side in (x, y)]
    expected = np.linalg.svd(orthogonal[0].T @ orthogonal[1], compute_uv=False)
    assert np.allclose(canonical_correlations(x, y, kept_variance=1.0), expected, atol=1e-8)


def test_rotations_scales_and_shifts_change_nothing_and_noise_shares_nothing() -> None:
    x, y = pair()
    turn = np.linalg.qr(DRAWS.normal(size=(6, 6)))[0]
    assert linear_cka(3 * x @ turn + 100, y) == pytest.approx(linear_cka(x, y), abs=1e-6)
    moved = 3 * x + 100
    for measure in (linear_cka, pwcca):
        assert measure(moved, y) == pytest.approx(measure(x, y), abs=1e-6)
        assert measure(x, moved) == pytest.approx(1.0)
        assert measure(DRAWS.normal(size=(4000, 6)), DRAWS.normal(size=(4000, 8))) < 0.1
    stretched = x @ DRAWS.normal(size=(6, 6))
    assert canonical_correlations(x, stretched, kept_variance=1.0).min() == pytest.approx(1.0)


def test_weights_follow_what_counts_in_x() -> None:
    shared = DRAWS.normal(size=(3000, 1))
    own, other = DRAWS.normal(size=(3000, 1)), DRAWS.normal(size=(3000, 1))
    y = np.concatenate([shared, other], axis=1)
    mostly, hardly = np.concatenate([10 * shared, own], axis=1), np.concatenate([shared, 10 * own], axis=1)
    assert pwcca(mostly, y, kept_variance=1.0) > 0.85
    assert pwcca(hardly, y, kept_variance=1.0) < 0.15
    assert canonical_correlations(mostly, y, kept_variance=1.0).mean() == pytest.approx(0.5, abs=0.05)


def test_a_stream_is_the_whole_also_far_from_the_origin() -> None:
    x, y = pair()
    for shift in (0.0, 1e5):
        stream = Moments()
        for start in range(0, len(x), 37):
            stream.update(x[start : start + 37] + shift, y[start : start + 37])
        assert stream.count == len(x)
        assert linear_cka(stream) == pytest.approx(linear_cka(x, y), abs=1e-6)


def test_refusals() -> None:
    x, y = pair(10)
    with pytest.raises(DataError, match="same frames"):
        linear_cka(x, y[:-1])
    with pytest.raises(DataError, match="does not vary"):
        linear_cka(np.ones((10, 2)), y)
    with pytest.raises(DataError, match="two frames"):
        pwcca(Moments())
    moments = Moments()
    moments.update(x, y)
    with pytest.raises(DataError, match="widths"):
        moments.update(y, x)
    with pytest.raises(DataError, match="finite"):
        moments.update(x * np.nan, y)
