"""The Squeezeformer block (arXiv:2206.00888, section 3.2): attention and convolution, a feed-forward and a norm after each.

The norm after each part lets the next one begin with numbers of known size, and a learnt scale in front of each part, far
cheaper than a second norm, gives back what the missing norm before it did.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sonorant.core.lengths import Geometry, zero_padding
from sonorant.nn.attention import Attention
from sonorant.nn.convolution import DepthwiseConv
from sonorant.nn.dropout import Dropout
from sonorant.nn.linear import Linear
from sonorant.nn.multirate import upsample
from sonorant.nn.norm import build_norm

__all__ = ["ChannelScale", "SqueezeformerBlock", "TimeRecovery", "TimeReduction"]


class ChannelScale(nn.Module):
    """γ · x + β for each channel (section 3.1.2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, values: Float[Tensor, "batch frame dim"]) -> Float[Tensor, "batch frame dim"]:
        return torch.addcmul(self.bias, values, self.weight)


class _Convolution(nn.Module):
    """Pointwise to twice the width, Swish in the place of the gate, depthwise, norm, Swish, pointwise back."""

    def __init__(self, dim: int, kernel_size: int, dropout: float, norm: str) -> None:
        super().__init__()
        self.expand = Linear(dim, 2 * dim)
        self.depthwise = DepthwiseConv(2 * dim, kernel_size)
        self.inner_norm = build_norm(norm, 2 * dim)
        self.contract = Linear(2 * dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        mixed = self.depthwise(nn.functional.silu(self.expand(values)), lengths)
        return self.dropout(self.contract(nn.functional.silu(self.inner_norm(mixed, lengths))))


def _feed_forward(dim: int, ffn_dim: int, dropout: float) -> nn.Sequential:
    inner, outer = Linear(dim, ffn_dim), Linear(ffn_dim, dim)
    return nn.Sequential(ChannelScale(dim), inner, nn.SiLU(), Dropout(dropout), outer, Dropout(dropout))


class SqueezeformerBlock(nn.Module):
    """One block.

    Args:
        dim: width.
        num_heads: heads of the attention.
        ffn_dim: inner width of the feed-forwards.
        kernel_size: of the depthwise convolution, odd.
        dropout: everywhere.
        position: kind of position in the attention.
        norm: inside the convolution; the paper's is "batch".
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        ffn_dim: int,
        kernel_size: int = 31,
        dropout: float = 0.1,
        position: str = "relative",
        norm: str = "layer",
    ) -> None:
        super().__init__()
        self.attention_scale = ChannelScale(dim)
        self.attention = Attention(dim, num_heads, dropout, position)
        self.dropout = Dropout(dropout)
        self.attention_norm = nn.LayerNorm(dim)
        self.first_ffn = _feed_forward(dim, ffn_dim, dropout)
        self.first_norm = nn.LayerNorm(dim)
        self.convolution_scale = ChannelScale(dim)
        self.convolution = _Convolution(dim, kernel_size, dropout, norm)
        self.convolution_norm = nn.LayerNorm(dim)
        self.second_ffn = _feed_forward(dim, ffn_dim, dropout)
        self.second_norm = nn.LayerNorm(dim)

    def forward(
        self,
        values: Float[Tensor, "batch frame dim"],
        lengths: Int[Tensor, " batch"],
        mask: Bool[Tensor, "batch 1 #frame frame"],
        table: Tensor | None = None,
    ) -> Float[Tensor, "batch frame dim"]:
        seen = self.dropout(self.attention(self.attention_scale(values), mask, table))
        values = self.attention_norm(values + seen)
        values = self.first_norm(values + self.first_ffn(values))
        values = self.convolution_norm(values + self.convolution(self.convolution_scale(values), lengths))
        return self.second_norm(values + self.second_ffn(values))

    def attention_map(
        self, values: Float[Tensor, "batch frame dim"], mask: Tensor | None = None, table: Tensor | None = None
    ) -> Float[Tensor, "batch head query key"]:
        """The weights of the attention for what comes into the block."""
        return self.attention.weights(self.attention_scale(values), mask, table)


class TimeReduction(nn.Module):
    """Every second frame, by a depthwise convolution of three frames and a pointwise one (section 3.1.1)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, 3, stride=2, padding=1, groups=dim)
        self.project = Linear(dim, dim)
        self.geometry = Geometry.conv(3, 2, 1)

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch out dim"], Int[Tensor, " batch"]]:
        thinned = self.depthwise(zero_padding(values, lengths).transpose(1, 2)).transpose(1, 2)
        lengths = self.geometry.output_lengths(lengths)
        return zero_padding(self.project(thinned), lengths), lengths


class TimeRecovery(nn.Module):
    """Frames twice, projected, and added to what they were before the reduction (section 3.1.1)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = Linear(dim, dim)

    def forward(
        self, values: Float[Tensor, "batch out dim"], before: Float[Tensor, "batch frame dim"]
    ) -> Float[Tensor, "batch frame dim"]:
        return before + upsample(self.project(values), 2, before.shape[1])
