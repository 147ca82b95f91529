"""Attention with rotary positions as fairseq's Conformers have them: the frames are rotated before they are projected.

After the projection, as `nn.attention` does it, scores depend on distances alone. Here they do not, so a frame must know how
far it is from the beginning of its item.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.nn.attention import attend, attention_weights, cut_table, position_table
from sonorant.nn.linear import Linear
from sonorant.nn.masking import attention_mask
from sonorant.nn.packed import Layout
from sonorant.nn.position import rotate

__all__ = ["RotatedAttention"]


class RotatedAttention(nn.Module):
    """Self-attention in which queries and keys are made from rotated frames, values from frames as they are.

    Args:
        dim: width, divided among the heads, each of an even width.
        num_heads: must divide `dim`.
        dropout: on the attention weights, while training.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % (2 * num_heads):
            raise ConfigError(
                f"num_heads must divide dim into even widths, got num_heads={num_heads} and dim={dim}; change one of them"
            )
        self.num_heads, self.dropout = num_heads, dropout
        self.query_key_value = Linear(dim, 3 * dim)
        self.output = Linear(dim, dim)

    def forward(
        self,
        values: Float[Tensor, "batch frame dim"],
        mask: Bool[Tensor, "#batch 1 #frame frame"] | None = None,
        table: Tensor | None = None,
    ) -> Float[Tensor, "batch frame dim"]:
        """Frames attend to the frames where `mask` is True; `table` is that of rotary positions."""
        joined = self._joined(values, self._rotated(values, table))
        return self.output(self._attend(joined, mask))

    def packed(
        self, values: Float[Tensor, "*frames dim"], layout: Layout, table: Tensor | None = None
    ) -> Float[Tensor, "*frames dim"]:
        """The same over a layout; `table` is that of its longest item."""
        rotated = layout.over_items(lambda own, _: self._rotated(own, table), values)

        def items(own: Tensor, lengths: Tensor | None) -> Tensor:
            return self._attend(own, None if lengths is None else attention_mask(lengths, own.shape[1]))

        return self.output(layout.over_items(items, self._joined(values, rotated)))

    def weights(
        self, values: Float[Tensor, "batch frame dim"], mask: Tensor | None = None, table: Tensor | None = None
    ) -> Float[Tensor, "batch head query key"]:
        """The attention map alone."""
        query, key, _ = self._heads(self._joined(values, self._rotated(values, table)))
        return attention_weights(query, key, mask=mask)

    def _rotated(
        self, values: Float[Tensor, "batch frame dim"], table: Tensor | None
    ) -> Float[Tensor, "batch frame dim"]:
        num_frames, dim = values.shape[1:]
        if table is None:
            table = position_table("rotary", dim, self.num_heads, num_frames, num_frames, values.device)
        cut = cut_table("rotary", table, num_frames)
        assert cut is not None
        heads = values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return rotate(heads, cut).transpose(1, 2).flatten(2)

    def _joined(self, values: Tensor, rotated: Tensor) -> Tensor:
        """Queries and keys of rotated frames, values of plain ones, side by side."""
        product, dim = self.query_key_value, values.shape[-1]
        if type(product) is not Linear:  # with an adapter on it, whose parts see the whole
            return torch.cat([product(rotated)[..., : 2 * dim], product(values)[..., 2 * dim :]], dim=-1)
        bias = (None, None) if product.bias is None else product.bias.split([2 * dim, dim])
        own = product.weight.split([2 * dim, dim])
        parts = [nn.functional.linear(rotated, own[0], bias[0]), nn.functional.linear(values, own[1], bias[1])]
        return torch.cat(parts, dim=-1)

    def _heads(self, joined: Float[Tensor, "batch frame joined"]) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = joined.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return query * query.shape[-1] ** -0.5, key, value

    def _attend(self, joined: Tensor, mask: Tensor | None) -> Tensor:
        prob = self.dropout if self.training else 0.0
        return attend(*self._heads(joined), mask=mask, dropout_prob=prob).transpose(1, 2).flatten(2)
