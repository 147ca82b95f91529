"""The Conformer block: half a feed-forward, attention, a convolution, the other half (arXiv:2005.08100, section 2)."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.nn.attention import Attention
from sonorant.nn.convolution import DepthwiseConv
from sonorant.nn.dropout import Dropout
from sonorant.nn.linear import Linear
from sonorant.nn.norm import BatchNorm, GroupNorm, build_norm
from sonorant.nn.packed import Layout
from sonorant.nn.streaming import LayerCache

__all__ = ["ConformerBlock", "ConvolutionModule", "feed_forward"]


def feed_forward(dim: int, ffn_dim: int, dropout: float, bias: bool = True) -> nn.Sequential:
    """Norm, expansion, Swish, contraction (section 2.3); dropout after both products."""
    return nn.Sequential(
        nn.LayerNorm(dim),
        Linear(dim, ffn_dim, bias),
        nn.SiLU(),
        Dropout(dropout),
        Linear(ffn_dim, dim, bias),
        Dropout(dropout),
    )


class ConvolutionModule(nn.Module):
    """Gated pointwise, depthwise, norm, Swish, pointwise (section 2.2).

    Args:
        dim: width.
        kernel_size: odd, frames that the depthwise convolution sees.
        dropout: on the output.
        norm: between depthwise and Swish, a name in `nn.norm.NORMS`; the paper's is "batch".
        causal: the convolution looks back only.
        bias: of the three convolutions.
    """

    def __init__(
        self, dim: int, kernel_size: int, dropout: float, norm: str = "layer", causal: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        if causal and norm in ("group", "instance"):
            raise ConfigError(f"norm={norm!r} looks at a whole item and cannot be causal; take layer, rms or batch")
        self.norm = nn.LayerNorm(dim)
        self.expand = Linear(dim, 2 * dim, bias)
        self.depthwise = DepthwiseConv(dim, kernel_size, causal, bias)
        self.inner_norm = build_norm(norm, dim)
        self.contract = Linear(dim, dim, bias)
        self.dropout = Dropout(dropout)

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch frame dim"]:
        gated = nn.functional.glu(self.expand(self.norm(values)), dim=-1)
        mixed = self.inner_norm(self.depthwise(gated, lengths), lengths)
        return self.dropout(self.contract(nn.functional.silu(mixed)))

    def packed(self, values: Float[Tensor, "*frames dim"], layout: Layout) -> Float[Tensor, "*frames dim"]:
        """The same over a layout."""
        whole = isinstance(self.inner_norm, GroupNorm)  # looks at an item, as the convolution does

        def items(own: Tensor, lengths: Tensor | None) -> Tensor:
            sizes = torch.full(own.shape[:1], own.shape[1], device=own.device) if lengths is None else lengths
            mixed = self.depthwise(own, sizes)
            return self.inner_norm(mixed, sizes) if whole else mixed  # type: ignore[no-any-return]

        mixed = layout.over_items(items, nn.functional.glu(self.expand(self.norm(values)), dim=-1))
        if isinstance(self.inner_norm, BatchNorm) and layout.runs is not None:  # all rows are frames of one batch
            mixed = self.inner_norm(mixed[None], torch.tensor([len(mixed)], device=mixed.device))[0]
        elif not whole:
            mixed = self.inner_norm(mixed, layout.lengths)
        return self.dropout(self.contract(nn.functional.silu(mixed)))

    def step(self, values: Tensor, past: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """One chunk after the `past` of the causal convolution; returns the output and the new past."""
        gated = nn.functional.glu(self.expand(self.norm(values)), dim=-1)
        mixed, past = self.depthwise.step(gated, past)
        return self.dropout(self.contract(nn.functional.silu(self.inner_norm(mixed, lengths)))), past


class ConformerBlock(nn.Module):
    """One block (equation 1): ½ FFN, attention, convolution, ½ FFN, norm, with residuals.

    Args:
        dim: width.
        num_heads: heads of the attention.
        ffn_dim: inner width of the feed-forwards.
        kernel_size: of the depthwise convolution, odd.
        dropout: everywhere.
        position: kind of position in the attention.
        norm: inside the convolution module.
        causal: the convolution looks back only.
        bias: of all products but those of positions; Fast Conformers of 2025 have none.
        conv_bias: of the convolution module, where it differs.
        attention: another attention with the same calls.
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
        causal: bool = False,
        bias: bool = True,
        *,
        conv_bias: bool | None = None,
        attention: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.first_ffn = feed_forward(dim, ffn_dim, dropout, bias)
        self.attention_norm = nn.LayerNorm(dim)
        self.attention: Any = Attention(dim, num_heads, dropout, position) if attention is None else attention
        if not bias:
            self.attention.query_key_value = Linear(dim, 3 * dim, bias=False)
            self.attention.output = Linear(dim, dim, bias=False)
        self.dropout = Dropout(dropout)
        convolution_bias = bias if conv_bias is None else conv_bias
        self.convolution = ConvolutionModule(dim, kernel_size, dropout, norm, causal, convolution_bias)
        self.second_ffn = feed_forward(dim, ffn_dim, dropout, bias)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        values: Float[Tensor, "batch frame dim"],
        lengths: Int[Tensor, " batch"],
        mask: Bool[Tensor, "batch 1 #frame frame"],
        table: Tensor | None = None,
    ) -> Float[Tensor, "batch frame dim"]:
        values = values + 0.5 * self.first_ffn(values)
        values = values + self.dropout(self.attention(self.attention_norm(values), mask, table))
        values = values + self.convolution(values, lengths)
        values = values + 0.5 * self.second_ffn(values)
        return self.norm(values)

    def packed(
        self, values: Float[Tensor, "*frames dim"], layout: Layout, table: Tensor | None = None
    ) -> Float[Tensor, "*frames dim"]:
        """The same over a layout; `table` is that of its longest item."""
        values = values + 0.5 * self.first_ffn(values)
        values = values + self.dropout(self.attention.packed(self.attention_norm(values), layout, table))
        values = values + self.convolution.packed(values, layout)
        values = values + 0.5 * self.second_ffn(values)
        return self.norm(values)

    def attention_map(
        self, values: Float[Tensor, "batch frame dim"], mask: Tensor | None = None, table: Tensor | None = None
    ) -> Float[Tensor, "batch head query key"]:
        """The weights of the attention for what comes into the block."""
        values = values + 0.5 * self.first_ffn(values)
        return self.attention.weights(self.attention_norm(values), mask, table)

    def empty_cache(self, batch: int, like: Tensor) -> LayerCache:
        """The cache before the first chunk, with the device and type of `like`."""
        head_dim = self.attention.output.in_features // self.attention.num_heads
        heads = like.new_zeros(batch, self.attention.num_heads, 0, head_dim)
        return LayerCache(
            heads, heads, like.new_zeros(batch, self.convolution.depthwise.left, self.norm.weight.numel())
        )

    def step(
        self, values: Float[Tensor, "batch frame dim"], lengths: Tensor, cache: LayerCache, left_frames: int | None
    ) -> tuple[Tensor, LayerCache]:
        """One chunk; sees itself, `left_frames` cached frames, and the past of the causal convolution."""
        values = values + 0.5 * self.first_ffn(values)
        seen, key, value = self.attention.step(self.attention_norm(values), cache.key, cache.value, left_frames)
        values = values + self.dropout(seen)
        mixed, past = self.convolution.step(values, cache.conv, lengths)
        values = values + mixed
        values = values + 0.5 * self.second_ffn(values)
        return self.norm(values), LayerCache(key, value, past)
