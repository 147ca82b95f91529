"""The parts of a Zipformer block (arXiv:2310.11230, section 3): one set of attention weights that three modules share.

Read `ZipformerBlock` first; `AttentionWeights` makes the weights, `ValueMixing` and `NonlinearAttention` use them, and
`Bypass` decides how much of what a block did is kept.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.nn.convolution import DepthwiseConv
from sonorant.nn.dropout import Dropout
from sonorant.nn.limits import Balancer, Whitener
from sonorant.nn.linear import Linear
from sonorant.nn.multirate import Downsample, upsample
from sonorant.nn.streaming import trim
from sonorant.nn.swoosh import SwooshL, swoosh_r

__all__ = [
    "AttentionWeights", "BiasNorm", "BlockCache", "Bypass", "NonlinearAttention", "RateChange", "ValueMixing",
    "ZipformerBlock", "compact_table", "scaled_linear",
]  # fmt: skip


def scaled_linear(input_dim: int, dim: int, scale: float) -> nn.Linear:
    """A linear layer that begins `scale` times as large, so that a new module hardly disturbs its residual."""
    linear = Linear(input_dim, dim)
    with torch.no_grad():
        linear.weight.mul_(scale)
        linear.bias.uniform_(-0.1 * scale, 0.1 * scale)
    return linear


class BiasNorm(nn.Module):
    """x · exp(γ) / RMS(x − b) (section 3.2, equation 3): keeps the length of a vector as information, unlike LayerNorm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # Not zero: ScaledAdam moves a parameter in proportion to its size.
        self.bias = nn.Parameter(torch.randn(dim) * 1e-4)
        self.log_scale = nn.Parameter(torch.ones(()))

    def forward(self, values: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        power = (values - self.bias).float().square().mean(-1, keepdim=True)
        # The bound is for frames of zeros (padding), whose gradient would else be infinite.
        return values * (power.clamp(min=1e-8).rsqrt() * self.log_scale.exp()).to(values.dtype)


class _Limited(torch.autograd.Function):
    """A parameter held within bounds, whose gradient turns round where it would lead further out."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, low: Tensor, high: float) -> Tensor:
        ctx.save_for_backward(values, low)
        ctx.high = high
        return torch.maximum(values, low.to(values.dtype)).clamp(max=high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        values, low = ctx.saved_tensors
        gradient = gradients[0]
        outward = ((values < low) & (gradient > 0)) | ((values > ctx.high) & (gradient < 0))
        return torch.where(outward, -gradient, gradient), None, None


class Bypass(nn.Module):
    """(1 − c) · x + c · f(x) with a learnt c for each channel, held in [floor, 1] (section 3.1, equation 1)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), 0.5))

    def forward(
        self, before: Float[Tensor, "batch frame dim"], after: Float[Tensor, "batch frame dim"], floor: Tensor
    ) -> Float[Tensor, "batch frame dim"]:
        if torch.compiler.is_compiling():
            held = torch.maximum(self.scale, floor.to(self.scale.dtype)).clamp(max=1.0)
            scale = self.scale + (held - self.scale).detach()
        else:
            scale = _Limited.apply(self.scale, floor, 1.0)
        return before + (after - before) * scale.to(after.dtype)


class RateChange(nn.Module):
    """The way into a slower stack and out of it: averages, then repetition and a bypass to what came in (figure 1)."""

    def __init__(self, dim: int, factor: int) -> None:
        super().__init__()
        self.dim, self.factor = dim, factor
        self.down = Downsample(factor) if factor > 1 else None
        self.bypass = Bypass(dim) if factor > 1 else None

    def enter(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames at the stack's rate, and their lengths."""
        return (values, lengths) if self.down is None else self.down(values, lengths)

    def leave(self, before: Tensor, values: Tensor, floor: Tensor) -> Tensor:
        """Back at the rate of `before`."""
        if self.bypass is None:
            return values
        return self.bypass(before, upsample(values, self.factor, before.shape[1]), floor)


def compact_table(
    num_queries: int, num_keys: int, dim: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "distance dim"]:
    """Cosines and sines of compressed distances query − key, from `num_keys` down to `1 − num_queries`.

    Distances are compressed by a logarithm and mapped to (−π/2, π/2) by an arctangent, so that a few numbers tell near
    ones apart finely and far ones coarsely, and no distance is beyond the table. The last column is one.
    """
    distances = torch.arange(num_keys, -num_queries, -1, device=device, dtype=torch.float32)
    length = math.sqrt(dim)
    compressed = length * distances.sign() * ((distances.abs() + length).log() - math.log(length))
    angles = torch.atan(compressed * (2 * math.pi / dim))[:, None] * torch.arange(1, dim // 2 + 1, device=device)
    table = torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(1)
    return torch.cat([table[:, :-1], torch.ones_like(table[:, :1])], dim=1)


class AttentionWeights(nn.Module):
    """Who looks at whom: the softmax of products of queries and keys plus a small query against positions.

    Args:
        dim: width.
        num_heads: heads.
        query_dim: of one head's queries and keys.
        position_head_dim: of one head's query against positions.
        position_dim: width of `compact_table`.
    """

    def __init__(self, dim: int, num_heads: int, query_dim: int, position_head_dim: int, position_dim: int) -> None:
        super().__init__()
        self.num_heads, self.sizes = num_heads, [num_heads * query_dim] * 2 + [num_heads * position_head_dim]
        # The scale takes the place of the division by √query_dim.
        self.project = scaled_linear(dim, sum(self.sizes), query_dim**-0.25)
        self.position = Linear(position_dim, num_heads * position_head_dim, bias=False)
        nn.init.uniform_(self.position.weight, -0.05 * position_dim**-0.5, 0.05 * position_dim**-0.5)

    def forward(
        self, values: Float[Tensor, "batch frame dim"], mask: Tensor | None, table: Float[Tensor, "distance position"]
    ) -> Float[Tensor, "batch head query key"]:
        query, key, place = self._heads(values)
        return self._weights(query, key, place, mask, table)

    def step(
        self, values: Tensor, past: Tensor, left_frames: int | None, table: Tensor
    ) -> tuple[Float[Tensor, "batch head query key"], Tensor]:
        """Weights of a chunk over the cached keys and its own; and the keys to be cached."""
        query, keys, place = self._heads(values)
        keys = torch.cat([past, keys], dim=2)
        return self._weights(query, keys, place, None, table), trim(keys, left_frames, 2)

    def _heads(self, values: Tensor) -> list[Tensor]:
        parts = self.project(values).split(self.sizes, dim=-1)
        return [part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts]

    def _weights(self, query: Tensor, key: Tensor, place: Tensor, mask: Tensor | None, table: Tensor) -> Tensor:
        num_queries, num_keys = query.shape[2], key.shape[2]
        positions = self.position(table.to(query.dtype)).unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0)
        by_distance = (place @ positions).flatten(-2)[..., num_queries:]
        # As in nn/position.py: rows read one shorter turn the diagonals of equal distance into columns.
        shifted = by_distance.unflatten(-1, (num_queries, num_queries + num_keys - 1))[..., :num_keys]
        scores = query @ key.transpose(-1, -2) + shifted
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(-1)


class ValueMixing(nn.Module):
    """What is left of self-attention without its weights: values, mixed by them, projected back."""

    def __init__(self, dim: int, num_heads: int, value_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.project = Linear(dim, num_heads * value_dim)
        self.output = scaled_linear(num_heads * value_dim, dim, 0.05)

    def forward(
        self, values: Float[Tensor, "batch frame dim"], weights: Float[Tensor, "batch head query key"]
    ) -> Float[Tensor, "batch frame dim"]:
        return self._mixed(self._heads(values), weights)

    def step(self, values: Tensor, weights: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """One chunk after the cached values; returns the output and all values."""
        heads = torch.cat([past, self._heads(values)], dim=2)
        return self._mixed(heads, weights), heads

    def _heads(self, values: Tensor) -> Tensor:
        return self.project(values).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _mixed(self, heads: Tensor, weights: Tensor) -> Tensor:
        return self.output((weights @ heads).transpose(1, 2).flatten(2))


class NonlinearAttention(nn.Module):
    """Gated values, mixed by the first head's weights and gated again (section 3.1)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = 3 * dim // 4
        self.project = Linear(dim, 3 * hidden)
        self.output = scaled_linear(hidden, dim, 0.05)

    def forward(
        self, values: Float[Tensor, "batch frame dim"], weights: Float[Tensor, "batch head query key"]
    ) -> Float[Tensor, "batch frame dim"]:
        gate, inner, outer = self.project(values).chunk(3, dim=-1)
        return self.output((weights[:, 0] @ (inner * gate.tanh())) * outer)

    def step(self, values: Tensor, weights: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """One chunk after the cached gated values; returns the output and all of those."""
        gate, inner, outer = self.project(values).chunk(3, dim=-1)
        gated = torch.cat([past, inner * gate.tanh()], dim=1)
        return self.output((weights[:, 0] @ gated) * outer), gated


class _FeedForward(nn.Sequential):
    def __init__(self, dim: int, ffn_dim: int, dropout: float, limit: bool) -> None:
        inner = [Balancer(min_positive=0.3, max_positive=1.0, min_abs=0.75, max_abs=5.0)] if limit else []
        output = scaled_linear(ffn_dim, dim, 0.1)
        super().__init__(Linear(dim, ffn_dim), *inner, SwooshL(), Dropout(dropout), output)


class _Convolution(nn.Module):
    """Gated pointwise, depthwise, SwooshR, pointwise; no norm (section 3.1)."""

    def __init__(self, dim: int, kernel_size: int, causal: bool, limit: bool) -> None:
        super().__init__()
        self.expand = Linear(dim, 2 * dim)
        self.depthwise = DepthwiseConv(dim, kernel_size, causal)
        nn.init.uniform_(self.depthwise.bias, -(kernel_size**-0.5), kernel_size**-0.5)  # type: ignore[arg-type]
        self.balancer = Balancer(min_positive=0.05, max_positive=0.95, min_abs=0.2, max_abs=10.0) if limit else None
        self.contract = scaled_linear(dim, dim, 0.05)

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        return self._closing(self.depthwise(self._gated(values), lengths))

    def step(self, values: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        mixed, past = self.depthwise.step(self._gated(values), past)
        return self._closing(mixed), past

    def _gated(self, values: Tensor) -> Tensor:
        return nn.functional.glu(self.expand(values), dim=-1)

    def _closing(self, mixed: Tensor) -> Tensor:
        mixed = mixed if self.balancer is None else self.balancer(mixed)
        return self.contract(swoosh_r(mixed))


class BlockCache(NamedTuple):
    """What one block remembers between chunks."""

    key: Tensor
    gated: Tensor
    first: Tensor
    second: Tensor
    first_conv: Tensor
    second_conv: Tensor


class ZipformerBlock(nn.Module):
    """One block (figure 2): the weights are made once from what enters, and used by three modules.

    Args:
        dim: width.
        num_heads: heads of the attention.
        ffn_dim: inner width of the second feed-forward; the first has ¾ and the third 1¼ of it.
        kernel_size: of the depthwise convolutions, odd.
        query_dim: of one head's queries and keys.
        value_dim: of one head's values.
        position_head_dim: of one head's query against positions.
        position_dim: width of the table of positions.
        dropout: in the feed-forwards.
        causal: the convolutions look back only.
        limit: keep activations in bounds by `Balancer` and `Whitener` while training.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        ffn_dim: int,
        kernel_size: int,
        *,
        query_dim: int = 32,
        value_dim: int = 12,
        position_head_dim: int = 4,
        position_dim: int = 48,
        dropout: float = 0.1,
        causal: bool = False,
        limit: bool = False,
    ) -> None:
        super().__init__()
        if position_dim % 2 or dim < 4 or ffn_dim < 4:
            raise ConfigError(
                f"position_dim must be even, dim and ffn_dim at least 4, got {position_dim}, {dim}, {ffn_dim}"
            )
        self.weights = AttentionWeights(dim, num_heads, query_dim, position_head_dim, position_dim)
        self.first_ffn = _FeedForward(dim, ffn_dim * 3 // 4, dropout, limit)
        self.nonlinear = NonlinearAttention(dim)
        self.first_attention = ValueMixing(dim, num_heads, value_dim)
        self.first_conv = _Convolution(dim, kernel_size, causal, limit)
        self.second_ffn = _FeedForward(dim, ffn_dim, dropout, limit)
        self.middle = Bypass(dim)
        self.second_attention = ValueMixing(dim, num_heads, value_dim)
        self.second_conv = _Convolution(dim, kernel_size, causal, limit)
        self.third_ffn = _FeedForward(dim, ffn_dim * 5 // 4, dropout, limit)
        self.norm = BiasNorm(dim)
        self.bypass = Bypass(dim)
        bounds = Balancer(min_positive=0.45, max_positive=0.55, min_abs=0.1, max_abs=4.0)
        self.limits = nn.Sequential(bounds, Whitener(limit=5.0)) if limit else None

    def forward(
        self,
        values: Float[Tensor, "batch frame dim"],
        lengths: Int[Tensor, " batch"],
        mask: Tensor | None,
        table: Tensor,
        floor: Tensor,
    ) -> Float[Tensor, "batch frame dim"]:
        before, weights = values, self.weights(values, mask, table)
        values = values + self.first_ffn(values)
        values = values + self.nonlinear(values, weights)
        values = values + self.first_attention(values, weights)
        values = values + self.first_conv(values, lengths)
        values = values + self.second_ffn(values)
        values = self.middle(before, values, floor)
        values = values + self.second_attention(values, weights)
        values = values + self.second_conv(values, lengths)
        values = self.norm(values + self.third_ffn(values))
        values = self.bypass(before, values, floor)
        return values if self.limits is None else self.limits(values)

    def attention_map(
        self, values: Float[Tensor, "batch frame dim"], mask: Tensor | None, table: Tensor
    ) -> Float[Tensor, "batch head query key"]:
        """The weights for what comes into the block."""
        return self.weights(values, mask, table)

    def empty_cache(self, batch: int, like: Tensor) -> BlockCache:
        """The cache before the first chunk, with the device and type of `like`."""
        heads = self.weights.num_heads
        value = like.new_zeros(batch, heads, 0, self.first_attention.project.out_features // heads)
        gated = like.new_zeros(batch, 0, self.nonlinear.output.in_features)
        conv = like.new_zeros(batch, self.first_conv.depthwise.left, self.bypass.scale.numel())
        return BlockCache(
            like.new_zeros(batch, heads, 0, self.weights.sizes[0] // heads), gated, value, value, conv, conv
        )

    def step(
        self,
        values: Float[Tensor, "batch frame dim"],
        cache: BlockCache,
        left: int | None,
        table: Tensor,
        floor: Tensor,
    ) -> tuple[Tensor, BlockCache]:
        """One chunk that sees itself, `left` cached frames, and the past of the causal convolutions."""
        before = values
        weights, key = self.weights.step(values, cache.key, left, table)
        values = values + self.first_ffn(values)
        mixed, gated = self.nonlinear.step(values, weights, cache.gated)
        values = values + mixed
        mixed, first = self.first_attention.step(values, weights, cache.first)
        values = values + mixed
        mixed, first_conv = self.first_conv.step(values, cache.first_conv)
        values = values + mixed
        values = values + self.second_ffn(values)
        values = self.middle(before, values, floor)
        mixed, second = self.second_attention.step(values, weights, cache.second)
        values = values + mixed
        mixed, second_conv = self.second_conv.step(values, cache.second_conv)
        values = values + mixed
        values = self.norm(values + self.third_ffn(values))
        kept = (trim(gated, left, 1), trim(first, left, 2), trim(second, left, 2))
        return self.bypass(before, values, floor), BlockCache(key, *kept, first_conv, second_conv)
