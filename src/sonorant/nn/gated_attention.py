"""WavLM's attention: a learnt bias for each distance, gated by what stands in the frame (arXiv:2110.13900, section 3.1)."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import one_of
from sonorant.core.errors import ConfigError
from sonorant.nn.attention import attend, attention_weights
from sonorant.nn.linear import Linear
from sonorant.nn.masking import attention_mask
from sonorant.nn.packed import Layout

__all__ = ["BucketBias", "GatedAttention", "toeplitz"]


class BucketBias(nn.Module):
    """A bias for each head and bucket of distances, shared by all layers; near distances have a bucket each, far ones share.

    Args:
        num_heads: heads.
        num_buckets: half of them for keys after the query; 4 or more.
        max_distance: frames from which on all distances share a bucket.
    """

    def __init__(self, num_heads: int, num_buckets: int = 320, max_distance: int = 800) -> None:
        super().__init__()
        if num_buckets < 4 or max_distance <= num_buckets // 4:
            raise ConfigError(
                "num_buckets must be at least 4, and max_distance above the num_buckets // 4 distances that have a bucket "
                f"each, got num_buckets={num_buckets} and max_distance={max_distance}"
            )
        self.max_distance = max_distance
        self.weight = nn.Parameter(torch.randn(num_buckets, num_heads))

    def forward(self, num_frames: int, like: Tensor) -> Float[Tensor, "head distance"]:
        """Biases of the distances key − query from 1 − `num_frames` to `num_frames` − 1, of the type of `like`."""
        distances = torch.arange(1 - num_frames, num_frames, device=like.device)
        return self.weight[self.buckets(distances)].t().to(like.dtype)

    def buckets(self, distances: Int[Tensor, " distance"]) -> Int[Tensor, " distance"]:
        """Row of the weights for each distance (section 3.1, equation 4)."""
        half = len(self.weight) // 2
        exact = half // 2
        size = distances.abs()
        share = torch.log(size.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = (exact + share * (half - exact)).long().clamp(max=half - 1)
        return torch.where(size < exact, size, far) + (distances > 0) * half


def toeplitz(distances: Float[Tensor, "head distance"], num_frames: int) -> Float[Tensor, "head query key"]:
    """The matrix whose entry (query, key) is that of the distance key − query; the middle of the row is distance 0."""
    middle = distances.shape[-1] // 2
    if torch.compiler.is_compiling():  # an unfold would fix the number of frames
        places = torch.arange(num_frames, device=distances.device)
        return distances[:, places[None, :] - places[:, None] + middle]
    own = distances[:, middle - num_frames + 1 : middle + num_frames]
    return own.unfold(-1, num_frames, 1).flip(1)


class GatedAttention(nn.Module):
    """Self-attention with a gated bias of distances.

    Args:
        dim: width, divided among the heads.
        num_heads: must divide `dim`.
        dropout: on the attention weights, while training.
        gate_from: what opens the gates: "frame", or its "query" (BEATs, arXiv:2212.09058, as its authors' code has it).
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0, gate_from: str = "frame") -> None:
        super().__init__()
        one_of("gate_from", gate_from, ("frame", "query"))
        if dim % num_heads:
            raise ConfigError(f"num_heads must divide dim, got num_heads={num_heads} and dim={dim}")
        self.num_heads, self.dropout, self.gate_from = num_heads, dropout, gate_from
        self.query_key_value = Linear(dim, 3 * dim)
        self.output = Linear(dim, dim)
        self.gate = Linear(dim // num_heads, 8)
        self.gate_scale = nn.Parameter(torch.ones(num_heads))

    def packed(
        self, values: Float[Tensor, "*frames dim"], layout: Layout, table: Tensor
    ) -> Float[Tensor, "*frames dim"]:
        """Over a layout; `table` is that of `BucketBias` for its longest item."""
        heads = self.query_key_value(values).unflatten(-1, (3, self.num_heads, -1))
        prob = self.dropout if self.training else 0.0
        # The gate rides along as one more column of each head, so that both are cut into items at once.
        joined = torch.cat([heads.flatten(-3), self._gates(values, heads[..., 0, :, :])], dim=-1)

        def items(own: Tensor, lengths: Tensor | None) -> Tensor:
            gates = own[..., -self.num_heads :].transpose(1, 2)[..., None]  # (item, head, query, 1)
            query, key, value = (
                own[..., : -self.num_heads].unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
            )
            mask = None if lengths is None else attention_mask(lengths, own.shape[1])
            bias = gates * toeplitz(table, own.shape[1])
            out = attend(query * query.shape[-1] ** -0.5, key, value, bias=bias, mask=mask, dropout_prob=prob)
            return out.transpose(1, 2).flatten(2)

        return self.output(layout.over_items(items, joined))

    def weights(
        self, values: Float[Tensor, "batch frame dim"], mask: Tensor | None, table: Tensor
    ) -> Float[Tensor, "batch head query key"]:
        """The attention map alone."""
        heads = self.query_key_value(values).unflatten(-1, (3, self.num_heads, -1))
        query, key, _ = heads.permute(2, 0, 3, 1, 4)
        bias = self._gates(values, heads[..., 0, :, :]).transpose(1, 2)[..., None] * toeplitz(table, values.shape[1])
        return attention_weights(query * query.shape[-1] ** -0.5, key, bias, mask)

    def _gates(self, values: Tensor, query: Tensor) -> Float[Tensor, "... head"]:
        """What each frame multiplies its biases by: r = a·(b·s − 1) + 2 with sigmoids a and b (equations 5 and 6)."""
        seen = query if self.gate_from == "query" else values.unflatten(-1, (self.num_heads, -1))
        first, second = self.gate(seen).unflatten(-1, (2, 4)).sum(-1).unbind(-1)
        return first.sigmoid() * (second.sigmoid() * self.gate_scale - 1.0) + 2.0
