"""The Transformer's decoder: tokens that see those before them and all frames of an encoder (arXiv:1706.03762, section 3.1).

Every call is a step: some tokens, after those that a cache remembers. The whole of a text is one step from an empty cache,
so what comes out one by one and at once is the same by construction. Read `DecoderLayer.step`.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.nn.attention import Attention, attend, attention_weights
from sonorant.nn.dropout import Dropout
from sonorant.nn.linear import Linear

__all__ = ["CrossAttention", "DecoderCache", "DecoderLayer"]


class DecoderCache(NamedTuple):
    """What one layer remembers: keys and values of the tokens so far, and those of the encoder's frames."""

    key: Float[Tensor, "batch head past headdim"]
    value: Float[Tensor, "batch head past headdim"]
    cross_key: Float[Tensor, "batch head frame headdim"]
    cross_value: Float[Tensor, "batch head frame headdim"]

    def select(self, rows: Int[Tensor, " row"]) -> "DecoderCache":
        """That of some rows, in their order, perhaps repeated: what a beam search keeps."""
        return DecoderCache(*(tensor[rows] for tensor in self))


class CrossAttention(nn.Module):
    """Attention of tokens to frames, whose keys and values are made once.

    Args:
        dim: width of the tokens, divided among the heads.
        num_heads: must divide `dim`.
        dropout: on the attention weights, while training.
        frame_dim: width of the frames; `dim` where None.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0, frame_dim: int | None = None) -> None:
        super().__init__()
        if dim % num_heads:
            raise ConfigError(f"num_heads must divide dim, got num_heads={num_heads} and dim={dim}")
        self.num_heads, self.dropout = num_heads, dropout
        self.query = Linear(dim, dim)
        self.key_value = Linear(frame_dim or dim, 2 * dim)
        self.output = Linear(dim, dim)

    def keys(self, frames: Float[Tensor, "batch frame dim"]) -> tuple[Tensor, Tensor]:
        """Keys and values `(batch, head, frame, headdim)`; what stands in the padding must be finite."""
        key, value = self.key_value(frames).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return key, value

    def forward(
        self, values: Float[Tensor, "batch token dim"], key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Float[Tensor, "batch token dim"]:
        """Tokens attend to the frames where `mask (batch, 1, 1, frame)` is True."""
        prob = self.dropout if self.training else 0.0
        heads = attend(self._queries(values), key, value, mask=mask, dropout_prob=prob)
        return self.output(heads.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def weights(
        self, values: Float[Tensor, "batch token dim"], key: Tensor, mask: Tensor | None = None
    ) -> Float[Tensor, "batch head token frame"]:
        """The attention map alone, for alignments."""
        return attention_weights(self._queries(values), key, mask=mask)

    def _queries(self, values: Tensor) -> Tensor:
        query = self.query(values).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return query * query.shape[-1] ** -0.5  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Attention to the tokens before, attention to frames, a feed-forward; the norm stands before each part.

    Args:
        dim: width.
        num_heads: heads of both attentions.
        ffn_dim: inner width of the feed-forward.
        dropout: before each residual sum.
        attention_dropout: on the attention weights.
        inner_dropout: inside the feed-forward.
        frame_dim: width of the encoder's frames; `dim` where None.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        ffn_dim: int,
        dropout: float = 0.0,
        *,
        attention_dropout: float = 0.0,
        inner_dropout: float = 0.0,
        frame_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, num_heads, attention_dropout)
        self.cross_norm = nn.LayerNorm(dim)
        self.cross_attention = CrossAttention(dim, num_heads, attention_dropout, frame_dim)
        self.ffn_norm = nn.LayerNorm(dim)
        inner = Dropout(inner_dropout)
        self.ffn = nn.Sequential(Linear(dim, ffn_dim), nn.GELU(), inner, Linear(ffn_dim, dim))
        self.dropout = Dropout(dropout)

    def start(self, frames: Float[Tensor, "batch frame dim"]) -> DecoderCache:
        """The cache before the first token."""
        key, value = self.cross_attention.keys(frames)
        num_heads = self.attention.num_heads
        nothing = key.new_zeros(len(key), num_heads, 0, self.attention.output.in_features // num_heads)
        return DecoderCache(nothing, nothing, key, value)

    def step(
        self,
        values: Float[Tensor, "batch token dim"],
        cache: DecoderCache,
        mask: Bool[Tensor, "1 1 token seen"],
        frames_mask: Bool[Tensor, "batch 1 1 frame"] | None = None,
    ) -> tuple[Float[Tensor, "batch token dim"], DecoderCache]:
        """Some tokens after those in the cache, and the cache with them; `mask` is that of `nn.masking.causal_mask`."""
        seen, key, value = self.attention.step(self.attention_norm(values), cache.key, cache.value, None, mask)
        values = values + self.dropout(seen)
        heard = self.cross_attention(self.cross_norm(values), cache.cross_key, cache.cross_value, frames_mask)
        values = values + self.dropout(heard)
        values = values + self.dropout(self.ffn(self.ffn_norm(values)))
        return values, cache._replace(key=key, value=value)
