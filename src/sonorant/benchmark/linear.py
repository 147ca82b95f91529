"""Multinomial logistic regression with a ridge penalty: the classifier that frozen representations are judged by.

Deterministic, on standardised features, fitted to convergence by L-BFGS in coordinates in which the Hessian is nearly the
identity (the features' principal axes, scaled by what ridge and variance make of them): some twenty passes over the data
whatever the features look like. A path of penalties shares the decomposition and starts each fit from the one before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from sonorant.core.errors import DataError

__all__ = ["LinearClassifier", "RIDGES", "fit_linear", "fit_path"]

RIDGES = (1.0, 0.1, 0.01, 1e-3, 1e-4)
"""Penalties that are tried, on features of unit variance and the mean loss; falling."""


@dataclass(frozen=True)
class LinearClassifier:
    """Scores of classes: standardised features times `weight`, plus `bias`."""

    mean: Float[Tensor, " dim"]
    scale: Float[Tensor, " dim"]
    weight: Float[Tensor, "dim class"]
    bias: Float[Tensor, " class"]
    ridge: float

    def __call__(self, features: Float[Tensor, "row dim"]) -> Float[Tensor, "row class"]:
        """Log odds, up to a constant of each row."""
        return ((features.float() - self.mean) * self.scale) @ self.weight + self.bias

    def predict(self, features: Float[Tensor, "row dim"]) -> Int[Tensor, " row"]:
        """The likeliest class."""
        return self(features).argmax(dim=-1)


def fit_path(
    features: Float[Tensor, "row dim"],
    labels: Int[Tensor, " row"],
    num_classes: int,
    ridges: Sequence[float] = RIDGES,
    steps: int = 20,
) -> list[LinearClassifier]:
    """One classifier for each penalty.

    Args:
        features: any floating type.
        labels: classes, from 0.
        num_classes: classes there are; one that no row bears is never answered.
        ridges: penalties λ of mean cross-entropy + λ/2 · ‖weight‖² (the bias is free), largest first.
        steps: of L-BFGS for each, at most.

    Raises:
        DataError: no rows, or features that are not finite.
    """
    values = features.float()
    if not len(values):
        raise DataError("a probe needs labelled rows, got none")
    if not bool(torch.isfinite(values).all()):
        raise DataError("a probe needs finite features: the encoder gives NaN or infinity")
    mean, std = values.mean(0), values.std(0, correction=0)
    # A constant feature says nothing; its rounding noise must not be blown up.
    scale = torch.where(std > 1e-5 * (mean.abs() + 1e-3), 1 / std.clamp(min=1e-12), 0.0)
    values = (values - mean) * scale
    variances, axes = torch.linalg.eigh((values.T @ values).double() / len(values))
    variances, axes = variances.clamp(min=0).float(), axes.float()
    # Mean curvature of the loss along a feature of unit variance, if classes were answered evenly.
    curvature = (1 - 1 / num_classes) / num_classes
    turned, bias = values @ axes, _log_shares(labels, num_classes)
    weight = torch.zeros(values.shape[1], num_classes)
    path = []
    for ridge in ridges:
        stretch = (curvature * variances + ridge).rsqrt()
        weight, bias = _minimised(turned, stretch, labels, weight, bias, ridge, steps)
        path.append(LinearClassifier(mean, scale, axes @ weight, bias, ridge))
    return path


def _log_shares(labels: Tensor, num_classes: int) -> Tensor:
    counts = torch.bincount(labels, minlength=num_classes).float()
    # A class that does not occur is as unlikely as half an occurrence would make it.
    return ((counts + 0.5 * (counts == 0)) / len(labels)).log()


def _minimised(
    turned: Tensor, stretch: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, ridge: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Weights over the principal axes, and biases, from where they are."""
    scaled = turned * stretch
    inner = (weight / stretch[:, None]).requires_grad_()
    free = bias.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [inner, free], max_iter=steps, history_size=10, tolerance_grad=1e-5, tolerance_change=1e-8,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimiser.zero_grad()
        penalty = (inner * stretch[:, None]).square().sum()
        loss = F.cross_entropy(scaled @ inner + free, labels) + 0.5 * ridge * penalty
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimiser.step(closure)  # type: ignore[no-untyped-call]
    return (inner * stretch[:, None]).detach(), free.detach()


def fit_linear(
    features: Float[Tensor, "row dim"],
    labels: Int[Tensor, " row"],
    dev_features: Float[Tensor, "dev_row dim"],
    dev_labels: Int[Tensor, " dev_row"],
    num_classes: int,
    ridges: Sequence[float] = RIDGES,
) -> tuple[LinearClassifier, float]:
    """The classifier of the path that is right most often on other data, and how often; of equal ones the smoothest."""
    best: tuple[LinearClassifier, float] | None = None
    for model in fit_path(features, labels, num_classes, ridges):
        accuracy = float((model.predict(dev_features) == dev_labels).float().mean()) if len(dev_labels) else 0.0
        if best is None or accuracy > best[1]:
            best = model, accuracy
    assert best is not None
    return best
