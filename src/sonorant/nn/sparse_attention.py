"""Attention to the neighbourhood and to every n-th frame of the whole item, at a cost linear in the length.

A frame looks at the frames up to `window` steps away, and at all frames whose number is a multiple of `stride`, so two
layers reach from anywhere to anywhere (the strided pattern of arXiv:1904.10509, section 4.3, without its causality).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sonorant.core.config import at_least
from sonorant.core.errors import ConfigError
from sonorant.nn.dropout import dropout
from sonorant.nn.linear import Linear
from sonorant.nn.masking import attention_mask
from sonorant.nn.packed import Layout
from sonorant.nn.position import rotary_table, rotate

__all__ = ["RotaryTable", "SparseAttention", "sparse_window"]


def sparse_window(
    num_frames: int, window: int, stride: int, device: torch.device | str = "cpu"
) -> Bool[Tensor, "query key"]:
    """True where `query` may look at `key`.

    >>> sparse_window(4, 1, 3).int().tolist()
    [[1, 1, 0, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 1, 1]]
    """
    frames = torch.arange(num_frames, device=device)
    return ((frames[:, None] - frames[None, :]).abs() <= window) | (frames % stride == 0)[None, :]


class RotaryTable(nn.Module):
    """What all layers' rotations share (`nn.position.rotary_table`), as a part of a `TransformerStack`."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim

    def forward(self, num_frames: int, like: Tensor) -> Float[Tensor, "2 frame half"]:
        return rotary_table(num_frames, self.head_dim, like.device)


class SparseAttention(nn.Module):
    """Multi-head self-attention over a window and strided frames, with rotary positions.

    Args:
        dim: width, divided among the heads.
        num_heads: must divide `dim`.
        window: frames on each side.
        stride: from one global frame to the next.
        dropout: on the attention weights, while training.
    """

    def __init__(self, dim: int, num_heads: int, window: int, stride: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % num_heads or dim // num_heads % 2:
            raise ConfigError(f"num_heads must divide dim into even parts, got num_heads={num_heads} and dim={dim}")
        at_least("window", window, 1)
        at_least("stride", stride, 1)
        self.num_heads, self.window, self.stride, self.dropout = num_heads, window, stride, dropout
        self.query_key_value = Linear(dim, 3 * dim)
        self.output = Linear(dim, dim)

    def forward(
        self,
        values: Float[Tensor, "batch frame dim"],
        mask: Bool[Tensor, "#batch 1 1 frame"] | None = None,
        table: Tensor | None = None,
    ) -> Float[Tensor, "batch frame dim"]:
        """Frames look around; `mask (batch, 1, 1, key)` is True at frames of signal, everything where None."""
        split = self.query_key_value(values).unflatten(-1, (3, self.num_heads, -1))
        return self.output(self._items(split, mask, table))

    def packed(
        self, values: Float[Tensor, "*frames dim"], layout: Layout, table: Tensor | None = None
    ) -> Float[Tensor, "*frames dim"]:
        """The same over a layout; `table` is that of its longest item."""
        heads = self.query_key_value(values).unflatten(-1, (3, self.num_heads, -1))

        def items(own: Tensor, lengths: Tensor | None) -> Tensor:
            mask = None if lengths is None else attention_mask(lengths, own.shape[1])
            return self._items(own, mask, None if table is None else table[:, : own.shape[1]])

        return self.output(layout.over_items(items, heads))

    def weights(
        self, values: Float[Tensor, "batch frame dim"], mask: Tensor | None = None, table: Tensor | None = None
    ) -> Float[Tensor, "batch head query key"]:
        """The whole attention map, zeros where a frame does not look."""
        split = self.query_key_value(values).unflatten(-1, (3, self.num_heads, -1))
        query, key, _ = self._placed(split, table)
        seen = sparse_window(values.shape[1], self.window, self.stride, values.device)
        seen = seen if mask is None else seen & mask
        return (query @ key.transpose(-1, -2)).masked_fill(~seen, float("-inf")).softmax(-1)

    def _placed(self, split: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled and turned queries, turned keys, and values, each `(batch, head, frame, headdim)`."""
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        if table is None:
            table = rotary_table(query.shape[2], query.shape[3], query.device)
        return rotate(query, table) * query.shape[-1] ** -0.5, rotate(key, table), value

    def _items(self, split: Tensor, mask: Tensor | None, table: Tensor | None) -> Tensor:
        """Blocks of `window` queries against the three blocks of keys around them and the global keys."""
        query, key, value = self._placed(split, table)
        num_frames, width = query.shape[2], self.window
        num_blocks = -(-num_frames // width)
        missing = num_blocks * width - num_frames
        blocks = nn.functional.pad(query, (0, 0, 0, missing)).unflatten(2, (num_blocks, width))
        local_keys, local_values = (self._around(part, missing) for part in (key, value))
        near = blocks @ local_keys.transpose(-1, -2)  # (batch, head, block, width, 3 · width)
        near = near.masked_fill(~self._near_mask(num_frames, num_blocks, mask, query.device), float("-inf"))
        global_keys, global_values = key[:, :, :: self.stride, None], value[:, :, :: self.stride, None]
        far = blocks @ global_keys.permute(0, 1, 3, 4, 2)  # (batch, head, block, width, global)
        if mask is not None:
            far = far.masked_fill(~mask[..., :: self.stride].unsqueeze(2), float("-inf"))
        weights = torch.cat([near, far], dim=-1).softmax(-1)
        weights = dropout(weights, self.dropout, self.training)
        near, far = weights.split([3 * width, far.shape[-1]], dim=-1)
        mixed = near @ local_values + far @ global_values.transpose(2, 3)
        return mixed.flatten(2, 3)[:, :, :num_frames].transpose(1, 2).flatten(2)

    def _around(self, heads: Tensor, missing: int) -> Tensor:
        """Each block with its two neighbours: (batch, head, block, 3 · width, headdim)."""
        width = self.window
        padded = nn.functional.pad(heads, (0, 0, width, width + missing))
        return padded.unfold(2, 3 * width, width).transpose(-1, -2)

    def _near_mask(self, num_frames: int, num_blocks: int, mask: Tensor | None, device: torch.device) -> Tensor:
        """(batch, 1, block, width, 3 · width): near enough, of signal, and not among the global frames already."""
        width = self.window
        inside = torch.arange(3 * width, device=device)
        queries = torch.arange(width, device=device)[:, None] + width
        near = (inside[None, :] - queries).abs() <= width
        frames = torch.arange(num_blocks, device=device)[:, None] * width + inside[None, :] - width
        valid = (frames >= 0) & (frames < num_frames) & (frames % self.stride != 0)
        if mask is not None:
            at = frames.clamp(min=0).clamp(max=num_frames - 1).flatten()
            valid = valid & mask[:, 0, 0, at].unflatten(-1, (num_blocks, 3 * width))
        else:
            valid = valid[None]
        return valid[:, None, :, None, :] & near
