"""The few weights that tune a frozen network: parts that sit on a linear layer, and a prefix beside an attention.

All begin as nothing: the network gives what it gave, until they are trained. A part on a linear layer is a module called
`part(inputs, outputs) -> outputs`; `AdaptedLinear` is a linear layer that carries some, under the names its weights had
before. Which layers of an encoder get which is said in `encoders/adapt.py`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sonorant.core.config import at_least
from sonorant.nn.dropout import Dropout
from sonorant.nn.linear import Linear
from sonorant.nn.packed import Layout

__all__ = ["AdaptedLinear", "Bottleneck", "GatedPrefix", "LowRank", "PrefixedAttention", "TokenShift", "whole_weight"]


class AdaptedLinear(Linear):
    """A linear layer with parts on it; its own weights keep their names and are those of the layer it takes the place of.

    Args:
        linear: whose weights are used.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.parts = nn.ModuleDict()

    def forward(self, input: Tensor) -> Tensor:
        output = super().forward(input)
        for part in self.parts.values():
            output = part(input, output)
        return output


class LowRank(nn.Module):
    """LoRA (arXiv:2106.09685, equation 3): W + (alpha / rank) · B A, for some of the equal blocks that the output is made of.

    Args:
        input_dim: width that comes in.
        widths: rows of each block of the output, such as those of query, key and value.
        chosen: which of the blocks.
        rank: of the change.
        alpha: the change is multiplied by alpha / rank.
        dropout: on what comes in.
    """

    def __init__(
        self,
        input_dim: int,
        widths: Sequence[int],
        chosen: Sequence[int],
        rank: int,
        alpha: float,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        at_least("rank", rank, 1)
        self.widths, self.chosen, self.scale = tuple(widths), tuple(chosen), alpha / rank
        self.down = nn.Parameter(torch.empty(len(chosen), rank, input_dim))
        self.up = nn.ParameterList(torch.zeros(widths[block], rank) for block in chosen)
        for down in self.down:
            nn.init.kaiming_uniform_(down, a=5**0.5)
        self.dropout = Dropout(dropout)
        self.merged = False

    def forward(self, inputs: Float[Tensor, "*frames input"], outputs: Float[Tensor, "*frames output"]) -> Tensor:
        if self.merged:
            return outputs
        inner = nn.functional.linear(self.dropout(inputs), self.down.flatten(0, 1)).unflatten(-1, (len(self.up), -1))
        blocks = list(outputs.split(self.widths, dim=-1))
        for place, block in enumerate(self.chosen):
            blocks[block] = blocks[block] + self.scale * nn.functional.linear(inner[..., place, :], self.up[place])
        return torch.cat(blocks, dim=-1)

    def change(self) -> Float[Tensor, "output input"]:
        """What is added to the weight."""
        rows = [self.down.new_zeros(width, self.down.shape[-1]) for width in self.widths]
        for place, block in enumerate(self.chosen):
            rows[block] = self.scale * self.up[place] @ self.down[place]
        return torch.cat(rows)


class Bottleneck(nn.Module):
    """Houlsby's adapter (arXiv:1902.00751, section 2.1): down, GELU, up, added to what the layer gives."""

    def __init__(self, dim: int, bottleneck_dim: int) -> None:
        super().__init__()
        at_least("bottleneck_dim", bottleneck_dim, 1)
        self.down, self.up = nn.Linear(dim, bottleneck_dim), nn.Linear(bottleneck_dim, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, inputs: Float[Tensor, "*frames input"], outputs: Float[Tensor, "*frames dim"]) -> Tensor:
        return outputs + self.up(nn.functional.gelu(self.down(outputs)))


class TokenShift(nn.Module):
    """AdapterBias (arXiv:2205.00305, equation 2): one learnt vector, added with a weight that each frame says."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(dim))
        self.weigh = nn.Linear(dim, 1)

    def forward(self, inputs: Float[Tensor, "*frames input"], outputs: Float[Tensor, "*frames dim"]) -> Tensor:
        return outputs + self.weigh(outputs) * self.vector


class GatedPrefix(nn.Module):
    """Learnt keys and values that every frame may look at, with a softmax and a gate of their own.

    Prefixes as first published (arXiv:2101.00190) share the softmax with the frames, and so change what comes out from the
    first step on; behind a gate that begins at zero (arXiv:2303.16199, equation 6) they do not.

    Args:
        dim: width of the attention.
        num_heads: of the attention.
        length: learnt frames.
    """

    def __init__(self, dim: int, num_heads: int, length: int) -> None:
        super().__init__()
        at_least("length", length, 1)
        self.num_heads = num_heads
        self.key = nn.Parameter(torch.randn(num_heads, length, dim // num_heads))
        self.value = nn.Parameter(torch.randn(num_heads, length, dim // num_heads) * 0.02)
        self.gate = nn.Parameter(torch.zeros(num_heads, 1))

    def forward(self, query: Float[Tensor, "*frames dim"]) -> Float[Tensor, "*frames dim"]:
        heads = query.unflatten(-1, (self.num_heads, -1))
        scores = torch.einsum("...hd,hld->...hl", heads * heads.shape[-1] ** -0.5, self.key)
        seen = torch.einsum("...hl,hld->...hd", scores.softmax(-1), self.value)
        return (self.gate.tanh() * seen).flatten(-2)


class PrefixedAttention(nn.Module):
    """An attention and a prefix beside it, with the calls of the attention.

    Args:
        inner: with `query_key_value`, `output` and `num_heads`.
        prefix: what is added before the output's projection.
    """

    def __init__(self, inner: Any, prefix: GatedPrefix) -> None:
        super().__init__()
        self.inner: Any = inner
        self.prefix = prefix

    @property
    def num_heads(self) -> int:
        return int(self.inner.num_heads)

    @property
    def output(self) -> nn.Linear:
        return self.inner.output  # type: ignore[no-any-return]

    @property
    def query_key_value(self) -> nn.Linear:
        return self.inner.query_key_value  # type: ignore[no-any-return]

    def forward(self, values: Float[Tensor, "batch frame dim"], *args: Any) -> Float[Tensor, "batch frame dim"]:
        return self.inner(values, *args) + self._shift(values)

    def packed(
        self, values: Float[Tensor, "*frames dim"], layout: Layout, table: Tensor | None = None
    ) -> Float[Tensor, "*frames dim"]:
        return self.inner.packed(values, layout, table) + self._shift(values)

    def weights(self, values: Float[Tensor, "batch frame dim"], *args: Any) -> Float[Tensor, "batch head query key"]:
        """The attention among the frames, without the prefix."""
        return self.inner.weights(values, *args)  # type: ignore[no-any-return]

    def step(self, values: Float[Tensor, "batch frame dim"], *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        frames, key, value = self.inner.step(values, *args)
        return frames + self._shift(values), key, value

    def _shift(self, values: Tensor) -> Tensor:
        weight, bias = whole_weight(self.inner.query_key_value), self.inner.query_key_value.bias
        third = len(weight) // 3
        query = nn.functional.linear(values, weight[:third], None if bias is None else bias[:third])
        return nn.functional.linear(self.prefix(query), whole_weight(self.inner.output))


def whole_weight(linear: nn.Linear) -> Float[Tensor, "output input"]:
    """The weight of a linear layer with the changes of low rank that sit on it."""
    weight: Tensor = linear.weight
    for part in linear.parts.values() if isinstance(linear, AdaptedLinear) else ():
        if isinstance(part, LowRank) and not part.merged:
            weight = weight + part.change()
    return weight
