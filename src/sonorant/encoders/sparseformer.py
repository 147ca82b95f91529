"""An encoder of attention alone, made cheap by looking near and at every n-th frame (after arXiv:2311.02772).

The paper compares encoders with and without convolutions under limits of size and latency, and a Transformer that is deep
and narrow with one that is shallow and wide. It leaves open how attention is thinned out; here a frame sees a window and
every n-th frame of the item (`nn/sparse_attention.py`). The two presets have the same number of parameters.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, overload

from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.core.types import Features
from sonorant.nn.convolution import SUBSAMPLINGS, build_subsampling
from sonorant.nn.sparse_attention import RotaryTable, SparseAttention
from sonorant.nn.transformer import Between, TransformerLayer, TransformerStack

__all__ = [
    "Sparseformer", "SparseformerConfig", "build", "sparseformer_deep", "sparseformer_tiny", "sparseformer_wide",
]  # fmt: skip

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class SparseformerConfig:
    """A Transformer with thinned-out attention; the defaults are the deep and narrow one."""

    input_dim: int = 80
    """Width of the features that come in (mel bands)."""
    input_frame_rate: float = 100.0
    """Frames a second that come in (10 ms hop)."""
    subsampling: str = "stack"
    """Front end: stack (no convolution either), or any of the Conformer's."""
    factor: int = 2
    """Input frames that become one."""
    channels: int = 0
    """Channels of a 2-D front end; 0 for its default."""
    dim: int = 384
    """Width of the blocks."""
    num_layers: int = 24
    """Blocks."""
    num_heads: int = 6
    """Heads of the attention; must divide `dim` into even parts."""
    ffn_dim: int = 1536
    """Inner width of the feed-forwards."""
    window: int = 16
    """Frames on each side that a frame sees."""
    stride: int = 16
    """From one frame that all see to the next."""
    dropout: float = 0.1
    """Everywhere."""
    layer_drop: float = 0.0
    """Share of layers left out at random while training."""

    def __post_init__(self) -> None:
        for name in ("input_dim", "factor", "dim", "num_layers", "num_heads", "ffn_dim", "window", "stride"):
            at_least(name, getattr(self, name), 1)
        at_least("channels", self.channels, 0)
        within("dropout", self.dropout, 0, 0.99)
        one_of("subsampling", self.subsampling, list(SUBSAMPLINGS))
        if self.dim % self.num_heads or self.dim // self.num_heads % 2:
            raise ConfigError(f"num_heads must divide dim into even parts, got {self.num_heads} and {self.dim}")


class Sparseformer(nn.Module):
    """Features (fbank) to frames of `config.dim`, `factor` times fewer.

    >>> import torch
    >>> encoder = Sparseformer(sparseformer_tiny())
    >>> encoder(torch.zeros(1, 103, 80), torch.tensor([103])).values.shape
    torch.Size([1, 51, 64])
    """

    input: Literal["features"] = "features"

    def __init__(self, config: SparseformerConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.local_dim, self.num_layers = config.dim, config.dim, config.num_layers
        self.subsampling: Any = build_subsampling(
            config.subsampling, config.input_dim, config.dim, config.factor, config.channels
        )
        self.stack = TransformerStack(
            [_block(config) for _ in range(config.num_layers)],
            config.dim,
            norm_first=True,
            table=RotaryTable(config.dim // config.num_heads),
            dropout=config.dropout,
            layer_drop=config.layer_drop,
        )

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
        """Input frames that the front end sees; attention sees the rest of the item."""
        return self.subsampling.receptive_field

    def output_lengths(self, lengths: Count) -> Count:
        """Frames that come out for `lengths` that go in; exact."""
        return self.subsampling.output_lengths(lengths)

    def local(self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]) -> Features:
        """The front end: `factor` times fewer frames."""
        hidden, lengths = self.subsampling(values, lengths)
        return Features(hidden, lengths, self.frame_rate)

    def embed(self, local: Features) -> Features:
        """The frames as they are."""
        return local

    def context(
        self, embedded: Features, layers: bool = False, between: Between | None = None
    ) -> Features | list[Features]:
        """The blocks; arguments as of `TransformerStack`."""
        return self.stack(embedded, layers, between)

    def attention_maps(
        self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]
    ) -> list[Float[Tensor, "batch head query key"]]:
        """The weights of each block's attention, zeros where a frame does not look."""
        return self.stack.attention_maps(self.embed(self.local(values, lengths)))

    @overload
    def forward(self, values: Tensor, lengths: Tensor, layers: Literal[False] = False) -> Features: ...
    @overload
    def forward(self, values: Tensor, lengths: Tensor, layers: Literal[True]) -> list[Features]: ...
    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch; `layers=True` returns what enters the first block and what comes out of each."""
        return self.context(self.embed(self.local(values, lengths)), layers)


def _block(config: SparseformerConfig) -> TransformerLayer:
    attention = SparseAttention(config.dim, config.num_heads, config.window, config.stride, config.dropout)
    return TransformerLayer(config.dim, config.num_heads, config.ffn_dim, config.dropout, attention=attention)


def sparseformer_deep(**changes: Any) -> SparseformerConfig:
    """Deep and narrow: 24 layers of 384, 42.6 M parameters."""
    return replace(SparseformerConfig(), **changes)


def sparseformer_wide(**changes: Any) -> SparseformerConfig:
    """Shallow and wide: 6 layers of 768, as many parameters."""
    return sparseformer_deep(**{"num_layers": 6, "dim": 768, "num_heads": 12, "ffn_dim": 3072, **changes})


def sparseformer_tiny(**changes: Any) -> SparseformerConfig:
    """Two small layers, for tests and demonstrations."""
    return sparseformer_deep(**{"num_layers": 2, "dim": 64, "num_heads": 4, "ffn_dim": 128, "dropout": 0.0, **changes})


def build(config: SparseformerConfig) -> Sparseformer:
    """The module of a configuration, with random weights."""
    return Sparseformer(config)
