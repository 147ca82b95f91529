"""The Swoosh activations of the Zipformer (arXiv:2310.11230, section 3.3): smooth, with a small slope where they are low.

SwooshR passes through zero and suits convolutions; SwooshL has its minimum further right, which lets a feed-forward learn
to be "normally off".
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["SwooshL", "SwooshR", "swoosh_l", "swoosh_r"]

_SLOPE = 0.08


def _formula(values: Tensor, shift: float, offset: float) -> Tensor:
    # softplus(x) = log(1 + exp(x)), which torch computes without overflow.
    return nn.functional.softplus(values - shift).sub_(offset).add_(values, alpha=-_SLOPE)


class _Swoosh(torch.autograd.Function):
    """Keeps the input alone and makes the derivative from it, where autograd would keep and pass over three tensors."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, shift: float, offset: float) -> Tensor:
        ctx.save_for_backward(values)
        ctx.shift = shift
        return _formula(values, shift, offset)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (values,) = ctx.saved_tensors
        return (values - ctx.shift).sigmoid_().sub_(_SLOPE).mul_(gradients[0]), None, None


def _swoosh(values: Tensor, shift: float, offset: float) -> Tensor:
    if torch.compiler.is_compiling():
        return nn.functional.softplus(values - shift) - _SLOPE * values - offset
    if torch.is_grad_enabled() and values.requires_grad:
        return _Swoosh.apply(values, shift, offset)
    return _formula(values, shift, offset)


def swoosh_l(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log(1 + exp(x − 4)) − 0.08 x − 0.035 (equation 5)."""
    return _swoosh(values, 4.0, 0.035)


def swoosh_r(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log(1 + exp(x − 1)) − 0.08 x − 0.313261687 (equation 4).

    >>> float(swoosh_r(torch.zeros(1)).abs()) < 1e-6
    True
    """
    return _swoosh(values, 1.0, 0.313261687)


class SwooshL(nn.Module):
    """`swoosh_l` as a module."""

    def forward(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return swoosh_l(values)


class SwooshR(nn.Module):
    """`swoosh_r` as a module."""

    def forward(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return swoosh_r(values)
