"""A brake on the scale of a front end's features."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.core.lengths import valid_mask

__all__ = ["feature_penalty"]


def feature_penalty(
    values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Mean square of each item's features, float32 (wav2vec 2.0, HuBERT; weight 10)."""
    valid = valid_mask(lengths, values.shape[1])[..., None]
    squares = torch.where(valid, values, 0).float().square().mean(dim=2)
    return squares.sum(dim=1) / lengths.clamp(min=1)
