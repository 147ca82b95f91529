"""One vector for an item: means, deviations and attention over its valid frames."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.lengths import valid_mask, zero_padding
from sonorant.nn.linear import Linear

__all__ = ["AttentivePooling", "mean_pool", "statistics_pool"]


def mean_pool(values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
    """Mean over the valid frames; zeros for an item of no frames.

    >>> mean_pool(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([2])).tolist()
    [[2.0]]
    """
    return zero_padding(values, lengths).sum(1) / lengths.clamp(min=1)[:, None].to(values.dtype)


def statistics_pool(
    values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"], eps: float = 1e-7
) -> Float[Tensor, "batch twice"]:
    """Mean and standard deviation over the valid frames, side by side (x-vectors' pooling)."""
    mean = mean_pool(values, lengths)
    var = mean_pool((values - mean[:, None]).square(), lengths)
    return torch.cat([mean, torch.sqrt(var + eps)], dim=-1)


class AttentivePooling(nn.Module):
    """Mean and deviation under learned weights, one weight for each channel and frame (arXiv:2005.07143, section 3.1).

    Args:
        dim: width that comes in; twice that comes out.
        hidden_dim: inner width of the network that makes the weights.
    """

    def __init__(self, dim: int, hidden_dim: int = 128) -> None:
        super().__init__()
        self.score = nn.Sequential(Linear(3 * dim, hidden_dim), nn.Tanh(), Linear(hidden_dim, dim))

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch twice"]:
        values = zero_padding(values, lengths)
        context = statistics_pool(values, lengths)[:, None].expand(-1, values.shape[1], -1)
        mask = valid_mask(lengths.clamp(min=1), values.shape[1])[..., None]
        weights = self.score(torch.cat([values, context], dim=-1)).masked_fill(~mask, float("-inf")).softmax(1)
        mean = (weights * values).sum(1)
        var = (weights * (values - mean[:, None]).square()).sum(1)
        return torch.cat([mean, torch.sqrt(var.clamp(min=1e-7))], dim=-1)
