"""Dropout that a CPU can afford.

`torch.nn.functional.dropout` draws one random number for each value, which on a CPU costs as much as the matrix product
that made the values (10 ms against 14 ms for a layer of 16 × 160 × 576). One 64-bit draw is eight bytes, and a byte is
enough to decide: the rate is rounded to 1/256 and the survivors are scaled by the rounded rate, so the mean is exact.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Dropout", "dropout"]

_LEVELS = 256


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, threshold: int) -> Tensor:
        count = values.numel()
        draws = torch.empty((count + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        kept = (draws.view(torch.uint8)[:count] >= threshold).view(values.shape)
        ctx.save_for_backward(kept)
        ctx.scale = _LEVELS / (_LEVELS - threshold)
        return (values * kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (gradients[0] * kept).mul_(ctx.scale), None


def dropout(values: Float[Tensor, "*shape"], prob: float, training: bool = True) -> Float[Tensor, "*shape"]:
    """Zeros a share `prob` of the values and scales the rest, so that the mean stays.

    On a CPU the rate is rounded to the nearest 1/256 (0.1 becomes 26/256 = 0.1016); elsewhere, and while a graph is
    being exported or compiled, this is torch's own dropout.

    >>> float(dropout(torch.ones(4), 0.5, training=False).sum())
    4.0
    """
    if not training or prob == 0:
        return values
    threshold = round(prob * _LEVELS)
    if values.device.type != "cpu" or torch.compiler.is_compiling() or not 0 < threshold < _LEVELS:
        return nn.functional.dropout(values, prob, training)
    return _ByteDropout.apply(values, threshold)


class Dropout(nn.Module):
    """`dropout` as a module, on while training."""

    def __init__(self, prob: float) -> None:
        super().__init__()
        if not 0 <= prob < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {prob}")
        self.prob = prob

    def forward(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return dropout(values, self.prob, self.training)

    def extra_repr(self) -> str:
        return f"{self.prob}"
