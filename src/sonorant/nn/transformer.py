"""The Transformer: one layer, with the norm before (default) or after each part, and a stack of them over speech.

A stack takes `Features`, packs them (`nn/packed.py`), and gives `Features` back, of every layer if asked. What varies
between the families of encoders (how positions enter, what biases the attention) is handed in as a part.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sonorant.core.config import within
from sonorant.core.types import Features
from sonorant.nn.attention import Attention
from sonorant.nn.dropout import Dropout
from sonorant.nn.linear import Linear, gelu_linear
from sonorant.nn.masking import attention_mask
from sonorant.nn.packed import Layout, pack
from sonorant.nn.streaming import LayerCache

__all__ = ["Between", "TransformerLayer", "TransformerStack"]

Between = Callable[[int, Features], Features]
"""(number of the block, 0 for what enters the first; what came out of it) → what the next block gets."""

ROWS = 512
"""Frames that go through a feed-forward together where nothing is kept for a gradient: the inner values stay in cache."""


class TransformerLayer(nn.Module):
    """Attention and a feed-forward with residuals (arXiv:1706.03762, section 3.1; norm first: arXiv:2002.04745).

    Args:
        dim: width.
        num_heads: heads of the attention.
        ffn_dim: inner width of the feed-forward.
        dropout: before each residual sum; also on attention weights and inside the feed-forward unless they are given.
        position: kind of position in the attention.
        norm_first: norm before each part, which trains without warm-up; after it, as first published, where False.
        attention_dropout: on the attention weights.
        inner_dropout: inside the feed-forward.
        attention: another attention with the same calls.
        residual_scale: of what goes past each part; above 1 in DeepNorm (arXiv:2203.00555, α in section 3).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        ffn_dim: int,
        dropout: float = 0.1,
        position: str = "none",
        norm_first: bool = True,
        *,
        attention_dropout: float | None = None,
        inner_dropout: float | None = None,
        attention: nn.Module | None = None,
        residual_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.norm_first, self.residual_scale = norm_first, residual_scale
        self.attention_norm = nn.LayerNorm(dim)
        on_weights = dropout if attention_dropout is None else attention_dropout
        self.attention: Any = Attention(dim, num_heads, on_weights, position) if attention is None else attention
        self.ffn_norm = nn.LayerNorm(dim)
        inner = Dropout(dropout if inner_dropout is None else inner_dropout)
        self.ffn = nn.Sequential(Linear(dim, ffn_dim), nn.GELU(), inner, Linear(ffn_dim, dim))
        self.dropout = Dropout(dropout)

    def forward(
        self,
        values: Float[Tensor, "batch frame dim"],
        mask: Bool[Tensor, "#batch 1 #frame frame"] | None = None,
        table: Tensor | None = None,
    ) -> Float[Tensor, "batch frame dim"]:
        return self._around(values, lambda inner: self.attention(inner, mask, table))

    def packed(
        self, values: Float[Tensor, "*frames dim"], layout: Layout, table: Tensor | None = None
    ) -> Float[Tensor, "*frames dim"]:
        """The same over a layout; `table` is that of its longest item."""
        return self._around(values, lambda inner: self.attention.packed(inner, layout, table))

    def attention_map(
        self, values: Float[Tensor, "batch frame dim"], mask: Tensor | None = None, table: Tensor | None = None
    ) -> Float[Tensor, "batch head query key"]:
        """The weights of the attention for what comes into the layer."""
        inner = self.attention_norm(values) if self.norm_first else values
        return self.attention.weights(inner, mask, table)

    def _around(self, values: Tensor, attention: Callable[[Tensor], Tensor]) -> Tensor:
        if not self.norm_first:
            values = self.attention_norm(self._past(values) + self.dropout(attention(values)))
            return self.ffn_norm(self._past(values) + self.dropout(self._ffn(values)))
        values = self._past(values) + self.dropout(attention(self.attention_norm(values)))
        return self._past(values) + self.dropout(self._ffn(self.ffn_norm(values)))

    def _past(self, values: Tensor) -> Tensor:
        return values if self.residual_scale == 1 else values * self.residual_scale

    def _ffn(self, values: Tensor) -> Tensor:
        if torch.is_grad_enabled() or self.training:
            return self.ffn(values)
        first, last = self.ffn[0], self.ffn[-1]
        parts = [last(gelu_linear(first, part)) for part in (values.split(ROWS) if values.dim() == 2 else [values])]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def empty_cache(self, batch: int, like: Tensor) -> LayerCache:
        """The cache before the first chunk, with the device and type of `like`."""
        dim, num_heads = self.attention.output.in_features, self.attention.num_heads
        heads = like.new_zeros(batch, num_heads, 0, dim // num_heads)
        return LayerCache(heads, heads, like.new_zeros(batch, 0, dim))

    def step(
        self, values: Float[Tensor, "batch frame dim"], cache: LayerCache, left_frames: int | None
    ) -> tuple[Tensor, LayerCache]:
        """One chunk that sees itself and `left_frames` cached frames."""
        inner = self.attention_norm(values) if self.norm_first else values
        seen, key, value = self.attention.step(inner, cache.key, cache.value, left_frames)
        cache = LayerCache(key, value, cache.conv)
        values = self._past(values) + self.dropout(seen)
        if not self.norm_first:
            values = self.attention_norm(values)
            return self.ffn_norm(self._past(values) + self.dropout(self.ffn(values))), cache
        return self._past(values) + self.dropout(self.ffn(self.ffn_norm(values))), cache


class TransformerStack(nn.Module):
    """Layers over a batch of speech, with no work done on padding.

    Args:
        blocks: layers, each with `packed` and `attention_map`.
        dim: width.
        norm_first: whether the layers norm before their parts: the stack's own norm then stands at the end, else before
            the first layer.
        position: adds positions to what comes in, by `packed(values, layout)`; none where None.
        table: makes what all layers' attentions share for so many frames, by `table(num_frames, like)`.
        dropout: on what enters the first layer.
        layer_drop: share of layers left out at random while training (arXiv:1909.11556).
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        dim: int,
        *,
        norm_first: bool,
        position: nn.Module | None = None,
        table: nn.Module | None = None,
        dropout: float = 0.0,
        layer_drop: float = 0.0,
    ) -> None:
        super().__init__()
        within("layer_drop", layer_drop, 0, 0.99)
        self.blocks = nn.ModuleList(blocks)
        self.dim, self.norm_first, self.layer_drop = dim, norm_first, layer_drop
        self.position: Any = position
        self.table: Any = table
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    @overload
    def forward(
        self, embedded: Features, layers: Literal[False] = False, between: Between | None = None
    ) -> Features: ...
    @overload
    def forward(self, embedded: Features, layers: Literal[True], between: Between | None = None) -> list[Features]: ...
    def forward(
        self, embedded: Features, layers: bool = False, between: Between | None = None
    ) -> Features | list[Features]:
        """Frames in context.

        Args:
            embedded: padded; what stands in the padding does not matter.
            layers: return what enters the first layer and what comes out of each; the last one with the final norm.
            between: is given each of them and returns what the next layer gets.
        """
        rate = embedded.frame_rate
        values, layout = pack(embedded)
        values, table = self._entering(values, layout)
        outputs: list[Features] = []
        for index in range(len(self.blocks) + 1):
            if index:
                values = self._through(index - 1, values, layout, table)
            if index == len(self.blocks) and self.norm_first:
                values = self.norm(values)
            if layers:
                outputs.append(layout.features(values, rate))
            if between is not None and index < len(self.blocks):
                values = layout.pack(between(index, layout.features(values, rate)).values)
        return outputs if layers else layout.features(values, rate)

    def attention_maps(self, embedded: Features) -> list[Tensor]:
        """The weights of each layer's attention `(batch, head, query, key)`."""
        values, layout = pack(embedded, packed=False)
        values, table = self._entering(values, layout)
        mask = attention_mask(embedded.lengths, layout.num_frames)
        maps = []
        for block in self.blocks:
            maps.append(block.attention_map(values, mask, table))  # type: ignore[operator]
            values = block.packed(values, layout, table)  # type: ignore[operator]
        return maps

    def _entering(self, values: Tensor, layout: Layout) -> tuple[Tensor, Tensor | None]:
        if self.position is not None:
            values = self.position.packed(values, layout)
        if not self.norm_first:
            values = self.norm(values)
        table = None if self.table is None else self.table(layout.longest, values)
        return self.dropout(values), table

    def _through(self, index: int, values: Tensor, layout: Layout, table: Tensor | None) -> Tensor:
        if self.training and self.layer_drop and float(torch.rand(())) < self.layer_drop:
            return values
        return self.blocks[index].packed(values, layout, table)  # type: ignore[no-any-return,operator]
