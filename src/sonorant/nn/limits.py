"""Balancer and Whitener (arXiv:2310.11230, section 3.5): activations kept in bounds by a small change of their gradient.

Neither changes what goes forward. Backward, where a statistic over the batch leaves its bounds, a small gradient is added
that leads it back: the Balancer looks at each channel's mean and size, the Whitener at how far channels vary together.
They see a whole batch, padding included, so the gradient of an item depends on the others while training.
"""

import math
from statistics import NormalDist
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sonorant.core.config import within

__all__ = ["Balancer", "Whitener", "whiteness"]


class _Balance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, bounds: tuple[float, float, float, float], weight: float) -> Tensor:
        ctx.save_for_backward(values)
        ctx.bounds, ctx.weight = bounds, weight
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (values,), gradient = ctx.saved_tensors, gradients[0]
        low_mean, high_mean, low_rms, high_rms = ctx.bounds
        with torch.enable_grad():
            leaf = values.detach().float().requires_grad_()
            axes = tuple(range(leaf.dim() - 1))
            mean, power = leaf.mean(axes), leaf.square().mean(axes)
            relative = mean / (power - mean.square()).clamp(min=1e-20).sqrt()
            rms = power.clamp(min=1e-20).sqrt()
            off = (relative - relative.clamp(low_mean, high_mean)).abs() + (
                rms.clamp(low_rms, high_rms) / rms
            ).log().abs()
            (pull,) = torch.autograd.grad(off.sum(), leaf)
        # As large as `weight` times the gradient itself, whatever the batch's size; nothing where all is in bounds.
        pull = pull * (ctx.weight / pull.square().mean(axes, keepdim=True).sqrt().clamp(min=1e-20))
        return gradient + (gradient.abs() * pull).to(gradient.dtype), None, None


class Balancer(nn.Module):
    """Keeps each channel's share of positive values and its mean absolute value in bounds.

    Args:
        min_positive: smallest share of positive values; turned into a bound of mean over deviation, as if normal.
        max_positive: largest share.
        min_abs: smallest mean absolute value; turned into a bound of the root mean square, as if normal.
        max_abs: largest.
        weight: size of the added gradient in relation to what comes back.
    """

    def __init__(
        self,
        *,
        min_positive: float = 0.05,
        max_positive: float = 0.95,
        min_abs: float = 0.2,
        max_abs: float = 100.0,
        weight: float = 0.04,
    ) -> None:
        super().__init__()
        within("min_positive", min_positive, 0, 1)
        within("max_positive", max_positive, min_positive, 1)
        size = math.sqrt(math.pi / 2)  # of a normal's deviation in relation to its mean absolute value
        self.bounds = (_deviations(min_positive), _deviations(max_positive), size * min_abs, size * max_abs)
        self.weight = weight

    def forward(self, values: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        if not (self.training and values.requires_grad) or torch.compiler.is_compiling():
            return values
        return _Balance.apply(values, self.bounds, self.weight)


def _deviations(share: float) -> float:
    """Mean, in deviations, of a normal variable of which so great a share is positive."""
    if share <= 0 or share >= 1:
        return math.copysign(100.0, share - 0.5)
    return NormalDist().inv_cdf(share)


class _Whiten(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, limit: float, weight: float) -> Tensor:
        ctx.save_for_backward(values)
        ctx.limit, ctx.weight = limit, weight
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (values,), gradient = ctx.saved_tensors, gradients[0]
        with torch.enable_grad():
            leaf = values.detach().float().requires_grad_()
            metric = whiteness(leaf)
            (pull,) = torch.autograd.grad(metric, leaf)
        scale = ctx.weight * gradient.float().norm() / pull.norm().clamp(min=1e-20)
        # No branch on a value of the device: the host does not wait.
        scale = torch.where(metric.detach() > ctx.limit, scale, 0.0)
        return gradient + (pull * scale).to(gradient.dtype), None, None


def whiteness(values: Float[Tensor, "*batch dim"]) -> Float[Tensor, ""]:
    """Mean squared eigenvalue of the covariance over its squared mean: 1 where channels are alike and independent.

    >>> round(float(whiteness(torch.cat([torch.eye(3), -torch.eye(3)]))), 3)
    1.0
    """
    flat = values.flatten(0, -2)
    centred = flat - flat.mean(0)
    covariance = centred.t() @ centred / len(flat)
    return covariance.square().sum() / len(covariance) / covariance.diagonal().mean().square().clamp(min=1e-20)


class Whitener(nn.Module):
    """Pulls channels apart where their `whiteness` is above `limit`.

    Args:
        limit: largest whiteness that is left alone.
        weight: size of the added gradient in relation to what comes back.
    """

    def __init__(self, *, limit: float = 5.0, weight: float = 0.02) -> None:
        super().__init__()
        self.limit, self.weight = limit, weight

    def forward(self, values: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        if not (self.training and values.requires_grad) or torch.compiler.is_compiling():
            return values
        return _Whiten.apply(values, self.limit, self.weight)
