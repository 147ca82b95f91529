"""Multi-head attention over padded batches, with no, rotary, Transformer-XL or Shaw positions.

The mask is boolean, True where a query may look (`nn.masking.attention_mask`), made once for all layers, and so is the
table of positions (`position_table`). Without relative positions torch's fused kernel does the work; with them the scores
are made here, because no fused kernel takes a bias that has a gradient.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sonorant.core.errors import ConfigError, unknown_name
from sonorant.nn.dropout import dropout
from sonorant.nn.linear import Linear
from sonorant.nn.masking import attention_mask, causal_mask
from sonorant.nn.packed import Layout
from sonorant.nn.position import RelativeBias, ShawBias, relative_table, rotary_table, rotate
from sonorant.nn.streaming import trim

__all__ = [
    "Attention", "Position", "PositionTable", "attend", "attention_weights", "cut_table", "position_table",
]  # fmt: skip

Position = Literal["none", "rotary", "relative", "shaw"]


def position_table(
    position: str, dim: int, num_heads: int, num_queries: int, num_keys: int, device: torch.device | str = "cpu"
) -> Tensor | None:
    """What `Attention` with this kind of position needs to know of distances; the same for all layers."""
    if position == "rotary":
        return rotary_table(num_keys, dim // num_heads, device)
    if position == "relative":
        return relative_table(num_queries, num_keys, dim, device)
    return None


class PositionTable(nn.Module):
    """`position_table` as the part of a `TransformerStack`: called with a number of frames, once for all layers."""

    def __init__(self, position: str, dim: int, num_heads: int) -> None:
        super().__init__()
        self.position, self.dim, self.num_heads = position, dim, num_heads

    def forward(self, num_frames: int, like: Tensor) -> Tensor | None:
        return position_table(self.position, self.dim, self.num_heads, num_frames, num_frames, like.device)


def cut_table(position: str, table: Tensor | None, num_frames: int) -> Tensor | None:
    """The part of a table for `N` frames that an item of `num_frames` needs."""
    if table is None:
        return None
    if position == "rotary":
        return table[:, :num_frames]
    longest = table.shape[0] // 2  # rows are the distances from `longest` down to 1 − `longest`
    return table[longest - num_frames : longest + num_frames]


def attend(
    query: Float[Tensor, "batch head query headdim"],
    key: Float[Tensor, "batch head key headdim"],
    value: Float[Tensor, "batch head key headdim"],
    *,
    bias: Float[Tensor, "... query key"] | None = None,
    mask: Bool[Tensor, "#batch 1 #query key"] | None = None,
    dropout_prob: float = 0.0,
) -> Float[Tensor, "batch head query headdim"]:
    """Weighted sums of values by the softmax of query · key + bias where `mask` is True; queries come scaled.

    On a CPU torch's fused kernel knows no dropout, and nowhere a bias with a gradient.
    """
    fused = bias is None or not bias.requires_grad
    if fused and (dropout_prob == 0 or query.device.type != "cpu"):
        if bias is not None:
            bias = bias.to(query.dtype)
            mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))  # type: ignore[assignment]
        return nn.functional.scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout_prob, scale=1.0)
    return dropout(attention_weights(query, key, bias, mask), dropout_prob) @ value


def attention_weights(query: Tensor, key: Tensor, bias: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """Softmax of query · key + bias where `mask` is True; queries come scaled."""
    scores = query @ key.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1)


class Attention(nn.Module):
    """Self-attention (arXiv:1706.03762, section 3.2.2).

    Args:
        dim: width, divided among the heads.
        num_heads: must divide `dim`.
        dropout: on the attention weights, while training.
        position: "none", "rotary" (arXiv:2104.09864), "relative" (arXiv:1901.02860, as in the Conformer) or "shaw"
            (arXiv:1803.02155).
        causal: frames see themselves and those before, whatever else a mask allows.
    """

    def __init__(
        self, dim: int, num_heads: int, dropout: float = 0.0, position: str = "none", causal: bool = False
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ConfigError(f"num_heads must divide dim, got num_heads={num_heads} and dim={dim}")
        if position not in get_args(Position):
            raise ConfigError(unknown_name("position", position, get_args(Position)))
        self.num_heads, self.dropout, self.position, self.causal = num_heads, dropout, position, causal
        self.query_key_value = Linear(dim, 3 * dim)
        self.output = Linear(dim, dim)
        self.relative = RelativeBias(dim, num_heads) if position == "relative" else None
        self.shaw = ShawBias(dim // num_heads) if position == "shaw" else None

    def forward(
        self,
        values: Float[Tensor, "batch frame dim"],
        mask: Bool[Tensor, "#batch 1 #frame frame"] | None = None,
        table: Tensor | None = None,
    ) -> Float[Tensor, "batch frame dim"]:
        """Frames attend to the frames where `mask (batch, 1, query or 1, key)` is True.

        Args:
            values: frames; what stands in the padding must be finite.
            mask: everything may be seen where None.
            table: of `position_table`; made here where None.
        """
        query, key, value = self._heads(values)
        return self._merge(self._attend(query, key, value, self._seen(mask, values), table))

    def packed(
        self, values: Float[Tensor, "*frames dim"], layout: Layout, table: Tensor | None = None
    ) -> Float[Tensor, "*frames dim"]:
        """The same over a layout; `table` is that of its longest item."""
        heads = self.query_key_value(values).unflatten(-1, (3, self.num_heads, -1))

        def items(own: Tensor, lengths: Tensor | None) -> Tensor:
            query, key, value = own.permute(2, 0, 3, 1, 4).unbind(0)  # from (item, frame, 3, head, headdim)
            mask = self._seen(None if lengths is None else attention_mask(lengths, own.shape[1]), own)
            cut = cut_table(self.position, table, own.shape[1])
            return self._attend(query, key, value, mask, cut).transpose(1, 2).flatten(2)

        return self.output(layout.over_items(items, heads))

    def weights(
        self, values: Float[Tensor, "batch frame dim"], mask: Tensor | None = None, table: Tensor | None = None
    ) -> Float[Tensor, "batch head query key"]:
        """The attention map alone, for those who want to look at it."""
        query, key, _ = self._heads(values)
        query, key, bias = self._placed(query, key, table)
        return attention_weights(query, key, bias, self._seen(mask, values))

    def step(
        self,
        values: Float[Tensor, "batch frame dim"],
        key: Tensor,
        value: Tensor,
        left_frames: int | None,
        mask: Bool[Tensor, "#batch 1 #frame seen"] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One chunk that sees itself and the cached past `(batch, head, past, headdim)`, all of it or where `mask` is True.

        Returns:
            frames, and the keys and values to be cached: the last `left_frames` (all where None).
        """
        query, new_key, new_value = self._heads(values)
        seen = self._seen(mask, values, key.shape[2])
        key, value = torch.cat([key, new_key], dim=2), torch.cat([value, new_value], dim=2)
        frames = self._merge(self._attend(query, key, value, seen, None))
        return frames, trim(key, left_frames, 2), trim(value, left_frames, 2)

    def _seen(self, mask: Tensor | None, values: Tensor, past: int = 0) -> Tensor | None:
        """`mask`, and what went before alone where that is all there is to see."""
        if not self.causal:
            return mask
        before = causal_mask(values.shape[1], past, values.device)
        return before if mask is None else mask & before

    def _heads(self, values: Tensor) -> tuple[Tensor, ...]:
        split = self.query_key_value(values).unflatten(-1, (3, self.num_heads, -1))
        return split.permute(2, 0, 3, 1, 4).unbind(0)  # three of (batch, head, frame, headdim)

    def _merge(self, heads: Tensor) -> Tensor:
        return self.output(heads.transpose(1, 2).flatten(2))

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, table: Tensor | None
    ) -> Float[Tensor, "batch head query headdim"]:
        query, key, bias = self._placed(query, key, table)
        prob = self.dropout if self.training else 0.0
        return attend(query, key, value, bias=bias, mask=mask, dropout_prob=prob)

    def _placed(self, query: Tensor, key: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Scaled queries, keys and the bias of their scores, each with what it knows of positions."""
        if table is None:
            dim, sizes = self.output.in_features, (query.shape[2], key.shape[2])
            table = position_table(self.position, dim, self.num_heads, *sizes, device=query.device)
        bias = None
        if self.position == "rotary" and table is not None:
            query, key = rotate(query, table), rotate(key, table)
        scale = query.shape[-1] ** -0.5
        query = query * scale
        if self.relative is not None and table is not None:
            # The biases stand beside the unscaled query in the paper, so they are scaled here like it.
            bias = self.relative(query, key.shape[2], table, scale)
            query = query + self.relative.content_bias * scale
        if self.shaw is not None:
            bias = self.shaw(query, key.shape[2])
        return query, key, bias
