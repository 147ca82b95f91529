"""How alike two representations of the same frames are: linear CKA, canonical correlations, PWCCA.

All of them are functions of second moments, which are gathered as a stream (`Moments`), so that memory does not grow with the
number of frames. Shifts and scales of either side change nothing; nor do rotations (but for PWCCA, whose weights look at the
coordinates of x); canonical correlations do not see any invertible linear map.
"""

import numpy as np
from jaxtyping import Float

from sonorant.core.config import within
from sonorant.core.errors import DataError

__all__ = ["Moments", "canonical_correlations", "linear_cka", "pwcca"]

Matrix = Float[np.ndarray, "_ _"]
Rows = Float[np.ndarray, "_ _"]


class Moments:
    """First and second moments of pairs of vectors, in double precision.

    >>> draws = np.random.default_rng(0).normal(size=(100, 3))
    >>> moments = Moments()
    >>> moments.update(draws[:50], draws[:50]), moments.update(draws[50:], draws[50:])
    (None, None)
    >>> round(linear_cka(moments), 6)
    1.0
    """

    def __init__(self) -> None:
        self.count = 0
        self._shift: tuple[np.ndarray, np.ndarray] | None = None
        self._sums = (np.zeros(0), np.zeros(0))
        self._products: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def update(self, x: Rows, y: Rows) -> None:
        """Adds rows: `x (n, dim)` and `y (n, other dim)` of the same n frames.

        Raises:
            DataError: unequal numbers of rows, other widths than before, values that are not finite.
        """
        x, y = x.astype(np.float64), y.astype(np.float64)
        if len(x) != len(y):
            raise DataError(f"both sides must be (frame, dim) of the same frames, got {x.shape} and {y.shape}")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise DataError("representations must be finite")
        if not len(x):
            return
        if self._products is None or self._shift is None:
            # Moments about the first frames' mean: far from the origin the squares would swallow the variance.
            self._shift = (x.mean(0), y.mean(0))
            self._sums = (np.zeros(x.shape[1]), np.zeros(y.shape[1]))
            self._products = (
                np.zeros((x.shape[1],) * 2),
                np.zeros((y.shape[1],) * 2),
                np.zeros((x.shape[1], y.shape[1])),
            )
        widths = (len(self._sums[0]), len(self._sums[1]))
        if (x.shape[1], y.shape[1]) != widths:
            raise DataError(f"widths must stay {widths[0]} and {widths[1]}, got {x.shape[1]} and {y.shape[1]}")
        x, y = x - self._shift[0], y - self._shift[1]
        self.count += len(x)
        for total, rows in zip(self._sums, (x, y)):
            total += rows.sum(0)
        for total, (left, right) in zip(self._products, ((x, x), (y, y), (x, y))):
            total += left.T @ right

    def covariances(self) -> tuple[Matrix, Matrix, Matrix]:
        """Of x, of y, and between them.

        Raises:
            DataError: fewer than two frames.
        """
        if self.count < 2 or self._products is None:
            raise DataError(f"similarity needs at least two frames, got {self.count}")
        means = [total / self.count for total in self._sums]
        pairs = ((means[0], means[0]), (means[1], means[1]), (means[0], means[1]))
        xx, yy, xy = (
            product / self.count - np.outer(left, right) for product, (left, right) in zip(self._products, pairs)
        )
        return xx, yy, xy


def _moments(x: Rows | Moments, y: Rows | None) -> Moments:
    if isinstance(x, Moments):
        return x
    if y is None:
        raise DataError("similarity is of two representations: give y, or Moments of both")
    moments = Moments()
    moments.update(x, y)
    return moments


def linear_cka(x: Rows | Moments, y: Rows | None = None) -> float:
    """Centred kernel alignment with linear kernels (Kornblith et al., 2019, arXiv:1905.00414, equation 4 in feature form):
    ‖Cov(x, y)‖² / (‖Cov(x)‖ · ‖Cov(y)‖), in [0, 1]; 1 where one is a rotation and scaling of the other.

    Args:
        x: `(frame, dim)`, or the moments of both sides.
        y: `(frame, other dim)`.
    """
    xx, yy, xy = _moments(x, y).covariances()
    norms = np.linalg.norm(xx) * np.linalg.norm(yy)
    if not norms > 0:
        raise DataError("similarity: one of the representations does not vary")
    return float(np.square(xy).sum() / norms)


def _whitening(covariance: Matrix, kept_variance: float) -> Matrix:
    """Columns that map to uncorrelated coordinates of unit variance, the smallest variances left out."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    total = values.clip(min=0).cumsum()
    if not total[-1] > 0:
        raise DataError("similarity: one of the representations does not vary")
    # What rounding alone leaves is no direction.
    real = int((values > values[0] * 1e-10).sum())
    keep = min(real, int(np.searchsorted(total, kept_variance * total[-1] * (1 - 1e-12))) + 1)
    return vectors[:, :keep] / np.sqrt(values[:keep])


def canonical_correlations(
    x: Rows | Moments, y: Rows | None = None, *, kept_variance: float = 0.99
) -> Float[np.ndarray, " pair"]:
    """Correlations of the best-matching pairs of directions, falling; their mean is SVCCA's measure (arXiv:1706.05806).

    Args:
        x: `(frame, dim)`, or the moments of both sides.
        y: `(frame, other dim)`.
        kept_variance: of each side so many principal components are kept as hold this share of its variance; directions that
            hardly vary correlate by accident.
    """
    within("kept_variance", kept_variance, 0, 1)
    xx, yy, xy = _moments(x, y).covariances()
    crossed = _whitening(xx, kept_variance).T @ xy @ _whitening(yy, kept_variance)
    return np.linalg.svd(crossed, compute_uv=False).clip(0.0, 1.0)


def pwcca(x: Rows | Moments, y: Rows | None = None, *, kept_variance: float = 0.99) -> float:
    """Canonical correlations weighted by how much of x each of its directions accounts for (Morcos et al., 2018,
    arXiv:1806.05759, equation 3); not symmetric.

    Args:
        x, y, kept_variance: as for `canonical_correlations`.
    """
    within("kept_variance", kept_variance, 0, 1)
    xx, yy, xy = _moments(x, y).covariances()
    basis = _whitening(xx, kept_variance)
    left, correlations, _ = np.linalg.svd(basis.T @ xy @ _whitening(yy, kept_variance), full_matrices=False)
    # Inner products of the canonical variates, of unit variance, with the columns of x: Cov(x) times their directions.
    weights = np.abs(xx @ basis @ left).sum(0)
    return float((weights * correlations.clip(0.0, 1.0)).sum() / weights.sum())
