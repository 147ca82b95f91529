"""Time derivatives of features, as Kaldi's `add-deltas` computes them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.core.errors import ConfigError
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features

__all__ = ["add_deltas", "deltas"]


def deltas(
    values: Float[Tensor, "batch frame dim"],
    lengths: Int[Tensor, " batch"] | None = None,
    order: int = 1,
    reach: int = 2,
) -> Float[Tensor, "batch frame dim"]:
    """The derivative of an order: the slope of a line fitted over `2 · reach + 1` frames, `order` times.

    Higher orders use the kernel convolved with itself on the features themselves, with the item's first and last frames
    standing in beyond its ends (Kaldi), not a derivative of a derivative with an edge of its own.

    Args:
        values: features.
        lengths: frames of each item; all where None.
        order: 1 for slope, 2 for curvature.
        reach: frames on either side for one order.

    >>> deltas(torch.arange(5.0).view(1, 5, 1))[0, :, 0].round(decimals=2)
    tensor([0.5000, 0.8000, 1.0000, 0.8000, 0.5000])
    """
    if order < 1 or reach < 1:
        raise ConfigError(f"deltas need order ≥ 1 and reach ≥ 1, got order={order} and reach={reach}")
    frames = values.shape[1]
    if frames == 0:
        return values
    steps = torch.arange(frames, device=values.device)
    last = torch.full((len(values),), frames, device=values.device) if lengths is None else lengths
    last = (last - 1).clamp(min=0)
    result = torch.zeros_like(values)
    for offset, weight in _kernel(order, reach):
        at = torch.minimum((steps + offset).clamp(min=0), last[:, None])
        result = result + weight * values.gather(1, at[:, :, None].expand(values.shape))
    return result if lengths is None else zero_padding(result, lengths)


def _kernel(order: int, reach: int) -> list[tuple[int, float]]:
    """(offset, weight) of the frames that count."""
    weights = {0: 1.0}
    norm = sum(step * step for step in range(-reach, reach + 1))
    for _ in range(order):
        wider: dict[int, float] = {}
        for offset, weight in weights.items():
            for step in range(-reach, reach + 1):
                wider[offset + step] = wider.get(offset + step, 0.0) + weight * step / norm
        weights = wider
    return [(offset, weight) for offset, weight in sorted(weights.items()) if weight]


def add_deltas(features: Features, order: int = 2, reach: int = 2) -> Features:
    """Features with their derivatives of orders 1 … `order` behind them.

    >>> add_deltas(Features(torch.randn(1, 9, 13), torch.tensor([9]), 100.0)).values.shape
    torch.Size([1, 9, 39])
    """
    parts = [deltas(features.values, features.lengths, level, reach) for level in range(1, order + 1)]
    static = zero_padding(features.values, features.lengths)
    return Features(torch.cat([static, *parts], dim=2), features.lengths, features.frame_rate)
