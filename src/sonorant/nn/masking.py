"""Padding, dealt with exactly: zeroed, masked in attention, turned round in reverse recurrences.

Everything here works from `lengths`, never from the values, so that what stands in the padding (garbage, infinities,
NaN) can never reach a frame of signal.
"""

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from sonorant.core.errors import DataError
from sonorant.core.lengths import padding_mask, valid_mask

__all__ = ["attention_mask", "check_lengths", "mask_values", "reverse_frames"]


def mask_values(values: Shaped[Tensor, "batch frame *rest"], lengths: Int[Tensor, " batch"]) -> Tensor:
    """`values (batch, frame, …)` with zeros from each item's length on.

    Unlike a product with the mask this also removes NaN and infinities: `0 * nan` is `nan`.

    >>> mask_values(torch.tensor([[1.0, float("nan")]]), torch.tensor([1])).tolist()
    [[1.0, 0.0]]
    """
    mask = padding_mask(lengths, values.shape[1])
    return values.masked_fill(mask.view(*mask.shape, *[1] * (values.dim() - 2)), 0)


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


def check_lengths(lengths: Int[Tensor, " batch"], num_frames: int, name: str = "values") -> None:
    """Refuses lengths that are negative or longer than the tensor they describe.

    Reads the lengths, which waits for the device; meant for the borders of the toolkit (losses, decoders), not for layers.

    Raises:
        DataError: names the first item whose length does not fit.
    """
    wrong = ((lengths < 0) | (lengths > num_frames)).nonzero().flatten().tolist()
    if wrong:
        item = wrong[0]
        raise DataError(
            f"lengths of {name} must lie in [0, {num_frames}] (its number of frames), got {int(lengths[item])} for item "
            f"{item}; were the lengths counted before or after subsampling?"
        )
