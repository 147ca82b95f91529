"""Transformers over log-mel that were trained to restore altered frames: Mockingjay (arXiv:1910.12638), TERA
(arXiv:2007.06028).

One network: frames, stacked where it runs slower than they come, projected, with sinusoids added and normed, then layers
with the norm behind each part. The two differ in what their objectives alter (`objectives.reconstruction`).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features
from sonorant.nn.attention import Attention
from sonorant.nn.convolution import stack_frames
from sonorant.nn.linear import Linear
from sonorant.nn.packed import Layout
from sonorant.nn.position import sinusoids
from sonorant.nn.transformer import Between, TransformerLayer, TransformerStack

__all__ = [
    "Tera", "TeraConfig", "build", "mockingjay", "mockingjay_large", "tera", "tera_large", "tera_medium", "tera_tiny",
]  # fmt: skip

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class TeraConfig:
    """A Transformer over features; the defaults are TERA base (arXiv:2007.06028, section III-A)."""

    input_dim: int = 80
    """Width of the features that come in (log-mel bands)."""
    input_frame_rate: float = 100.0
    """Frames a second that come in (10 ms hop)."""
    factor: int = 1
    """Neighbouring frames that are stacked into one (Mockingjay base: 3)."""
    dim: int = 768
    """Width of the layers."""
    num_layers: int = 3
    """Layers."""
    num_heads: int = 12
    """Heads of the attention; must divide `dim`."""
    ffn_dim: int = 3072
    """Inner width of the feed-forwards."""
    dropout: float = 0.1
    """Everywhere (the authors' TERA code has 0.3 with 100 hours)."""
    position: Literal["sinusoid", "learned"] = "sinusoid"
    """What is added to the projected frames."""
    max_frames: int = 3000
    """Frames that learned positions reach."""
    norm_first: bool = False
    """Norm before each part instead of behind it."""
    causal: bool = False
    """Frames see those before them only, as objectives that predict what comes need it."""

    def __post_init__(self) -> None:
        for name in ("input_dim", "factor", "dim", "num_layers", "num_heads", "ffn_dim", "max_frames"):
            at_least(name, getattr(self, name), 1)
        within("dropout", self.dropout, 0, 0.99)
        one_of("position", self.position, ("sinusoid", "learned"))
        if self.dim % self.num_heads or self.dim % 2:
            raise ConfigError(f"num_heads must divide dim, and dim be even, got {self.num_heads} and {self.dim}")


class _Positions(nn.Module):
    """Adds a vector for each position: sine and cosine side by side for each frequency, or learned."""

    def __init__(self, config: TeraConfig) -> None:
        super().__init__()
        self.table = None
        if config.position == "learned":
            self.table = nn.Parameter(0.02 * torch.randn(config.max_frames, config.dim))

    def forward(self, values: Float[Tensor, "batch frame dim"]) -> Float[Tensor, "batch frame dim"]:
        num_frames, dim = values.shape[1:]
        if self.table is None:
            halves = sinusoids(torch.arange(num_frames, device=values.device), dim)
            return values + halves.unflatten(1, (2, -1)).mT.flatten(1).to(values.dtype)
        if num_frames > len(self.table):
            raise DataError(
                f"an item has {num_frames} frames and position='learned' knows {len(self.table)}: cut the audio, raise "
                "max_frames, or take position='sinusoid'"
            )
        return values + self.table[:num_frames]

    def packed(self, values: Float[Tensor, "*frames dim"], layout: Layout) -> Float[Tensor, "*frames dim"]:
        return layout.over_items(lambda own, _: self(own), values)


def _layer(config: TeraConfig) -> TransformerLayer:
    attention = Attention(config.dim, config.num_heads, config.dropout, causal=config.causal)
    sizes = (config.dim, config.num_heads, config.ffn_dim, config.dropout)
    return TransformerLayer(*sizes, norm_first=config.norm_first, attention=attention)


class Tera(nn.Module):
    """Log-mel frames to frames of `config.dim`, `factor` times fewer.

    >>> Tera(tera_tiny())(torch.zeros(1, 50, 80), torch.tensor([50])).values.shape
    torch.Size([1, 50, 64])
    """

    input = "features"

    def __init__(self, config: TeraConfig) -> None:
        super().__init__()
        self.config, self.dim, self.num_layers = config, config.dim, config.num_layers
        self.local_dim = config.factor * config.input_dim
        self.project = Linear(self.local_dim, config.dim)
        self.stack = TransformerStack(
            [_layer(config) for _ in range(config.num_layers)],
            config.dim,
            norm_first=config.norm_first,
            position=_Positions(config),
            dropout=config.dropout,
        )
        for module in self.modules():  # as BERT begins
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers."""
        return self.stack.blocks

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out."""
        return self.config.input_frame_rate / self.config.factor

    @property
    def receptive_field(self) -> int:
        """Input frames that are stacked into one; attention sees the whole item."""
        return self.config.factor

    def output_lengths(self, lengths: Count) -> Count:
        """Frames that come out; an incomplete last stack is left out."""
        return lengths // self.config.factor

    def local(self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]) -> Features:
        """The features, stacked."""
        factor = self.config.factor
        if values.shape[1] < factor:  # zeros are cut off again by the lengths
            values = nn.functional.pad(values, (0, 0, 0, factor - values.shape[1]))
        return Features(*stack_frames(values, lengths, factor), self.frame_rate)

    def embed(self, local: Features) -> Features:
        """Projected to `dim`."""
        values = zero_padding(self.project(local.values), local.lengths)
        return Features(values, local.lengths, local.frame_rate)

    def context(
        self, embedded: Features, layers: bool = False, between: Between | None = None
    ) -> Features | list[Features]:
        """Positions, norm and the layers; see `TransformerStack`."""
        return self.stack(embedded, layers, between)  # type: ignore[no-any-return]

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch; `layers=True` returns what enters the first layer and what comes out of each."""
        return self.context(self.embed(self.local(values, lengths)), layers)

    def attention_maps(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]
    ) -> list[Float[Tensor, "batch head query key"]]:
        """The attention's weights, one tensor a layer."""
        return self.stack.attention_maps(self.embed(self.local(values, lengths)))


# --- published sizes --------------------------------------------------------------------------------------------------


def tera(**changes: Any) -> TeraConfig:
    """Base: three layers of 768, 21.3 M parameters."""
    return replace(TeraConfig(), **changes)


def tera_medium(**changes: Any) -> TeraConfig:
    """Six layers."""
    return tera(**{"num_layers": 6, **changes})


def tera_large(**changes: Any) -> TeraConfig:
    """Twelve layers."""
    return tera(**{"num_layers": 12, **changes})


def mockingjay(**changes: Any) -> TeraConfig:
    """Base: three layers over stacks of three frames of 160 bands (table 1)."""
    return tera(**{"input_dim": 160, "factor": 3, **changes})


def mockingjay_large(**changes: Any) -> TeraConfig:
    """Twelve layers, every frame."""
    return mockingjay(**{"factor": 1, "num_layers": 12, **changes})


def tera_tiny(**changes: Any) -> TeraConfig:
    """Two small layers, for tests and demonstrations; no published size."""
    sizes = {"num_layers": 2, "dim": 64, "num_heads": 4, "ffn_dim": 128, "dropout": 0.0}
    return tera(**{**sizes, **changes})


def build(config: TeraConfig) -> Tera:
    """The module of a configuration, with random weights."""
    return Tera(config)
