"""Padding, dealt with exactly: masked in attention, turned round in reverse recurrences; `core.lengths` zeroes it.

Everything here works from `lengths`, never from the values, so that what stands in the padding (garbage, infinities,
NaN) can never reach a frame of signal.
"""

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from sonorant.core.lengths import valid_mask

__all__ = ["attention_mask", "reverse_frames"]


def attention_mask(
    lengths: Int[Tensor, " batch"], num_frames: int, window: Bool[Tensor, "query key"] | None = None
) -> Bool[Tensor, "batch 1 query_or_one key"]:
    """True where a query may look: at frames of signal and, if given, inside `window (query, key)`.

    Without a window the query axis has size 1 (every query sees the same keys). An item of no frames, and a padded query
    whose window holds nothing but padding, would have nothing to look at and turn into NaN; the first is given frame 0,
    the second itself. Neither is ever seen by a frame of signal.

    >>> attention_mask(torch.tensor([1, 2]), 2).int().tolist()
    [[[[1, 0]]], [[[1, 1]]]]
    """
    keys = valid_mask(lengths.clamp(min=1), num_frames)[:, None, None, :]
    if window is None:
        return keys
    itself = torch.eye(num_frames, dtype=torch.bool, device=lengths.device)
    return (keys & window) | itself


def reverse_frames(values: Shaped[Tensor, "batch frame *rest"], lengths: Int[Tensor, " batch"]) -> Tensor:
    """Each item turned round within its length; the padding stays where it is. Its own inverse.

    >>> reverse_frames(torch.tensor([[1, 2, 3, 0]]), torch.tensor([3])).tolist()
    [[3, 2, 1, 0]]
    """
    steps = torch.arange(values.shape[1], device=values.device)[None, :]
    index = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return torch.gather(values, 1, index.view(*index.shape, *[1] * (values.dim() - 2)).expand_as(values))
