"""The Transformer encoder layer, with the norm before (default) or after each part."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from sonorant.nn.attention import Attention
from sonorant.nn.dropout import Dropout
from sonorant.nn.streaming import LayerCache

__all__ = ["TransformerLayer"]


class TransformerLayer(nn.Module):
    """Attention and a feed-forward with residuals (arXiv:1706.03762, section 3.1; norm first: arXiv:2002.04745).

    Args:
        dim: width.
        num_heads: heads of the attention.
        ffn_dim: inner width of the feed-forward.
        dropout: on attention weights, inside the feed-forward and before each residual sum.
        position: kind of position in the attention.
        norm_first: norm before each part, which trains without warm-up; after it, as first published, where False.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        ffn_dim: int,
        dropout: float = 0.1,
        position: str = "none",
        norm_first: bool = True,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, num_heads, dropout, position)
        self.ffn_norm = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn_dim), nn.GELU(), Dropout(dropout), nn.Linear(ffn_dim, dim))
        self.dropout = Dropout(dropout)

    def forward(
        self,
        values: Float[Tensor, "batch frame dim"],
        mask: Bool[Tensor, "#batch 1 #frame frame"] | None = None,
        table: Tensor | None = None,
    ) -> Float[Tensor, "batch frame dim"]:
        if not self.norm_first:
            values = self.attention_norm(values + self.dropout(self.attention(values, mask, table)))
            return self.ffn_norm(values + self.dropout(self.ffn(values)))
        values = values + self.dropout(self.attention(self.attention_norm(values), mask, table))
        return values + self.dropout(self.ffn(self.ffn_norm(values)))

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
        values = values + self.dropout(seen)
        if not self.norm_first:
            values = self.attention_norm(values)
            return self.ffn_norm(values + self.dropout(self.ffn(values))), cache
        return values + self.dropout(self.ffn(self.ffn_norm(values))), cache
