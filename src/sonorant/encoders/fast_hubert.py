"""Fast-HuBERT's network (Yang et al., 2023, arXiv:2309.13860): log-mel, two strided convolutions, HuBERT's Transformer.

The convolutions over the waveform are most of what a small HuBERT costs; here 10 ms frames of the spectrum become frames of
40 ms, of which the Transformer has half as many to go through.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, within
from sonorant.core.errors import ConfigError
from sonorant.core.types import Features
from sonorant.nn.convolution import Subsampling1d
from sonorant.nn.dropout import Dropout
from sonorant.nn.linear import Linear
from sonorant.nn.position import ConvolutionalPosition
from sonorant.nn.transformer import Between, TransformerLayer, TransformerStack

__all__ = ["FastHubert", "FastHubertConfig", "build", "fast_hubert_base", "fast_hubert_tiny"]

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class FastHubertConfig:
    """The defaults are the base model (section 3)."""

    input_dim: int = 80
    """Width of the features that come in (mel bands)."""
    input_frame_rate: float = 100.0
    """Frames a second that come in (10 ms hop)."""
    kernels: tuple[int, ...] = (5, 5)
    """Frames that each convolution sees (section 3.1)."""
    strides: tuple[int, ...] = (2, 2)
    """Frames that each moves by: 40 ms in all."""
    local_dim: int = 512
    """Channels of the convolutions."""
    dim: int = 768
    """Width of the layers."""
    num_layers: int = 12
    """Transformer layers."""
    num_heads: int = 12
    """Heads of the attention; must divide `dim`."""
    ffn_dim: int = 3072
    """Inner width of the feed-forwards."""
    norm_first: bool = False
    """Norms before the parts of a layer rather than after them."""
    position_kernel: int = 128
    """Frames that the convolution of positions sees."""
    position_groups: int = 16
    """Groups of its channels."""
    dropout: float = 0.1
    """Everywhere."""
    layer_drop: float = 0.05
    """Share of layers left out while training."""

    def __post_init__(self) -> None:
        for name in ("input_dim", "local_dim", "dim", "num_layers", "num_heads", "ffn_dim", "position_kernel"):
            at_least(name, getattr(self, name), 1)
        within("dropout", self.dropout, 0, 0.99)
        if not self.kernels or len(self.kernels) != len(self.strides):
            raise ConfigError(f"kernels and strides must be as many, got {self.kernels} and {self.strides}")
        if self.dim % self.num_heads or self.dim % self.position_groups:
            raise ConfigError(
                f"num_heads and position_groups must divide dim, got {self.num_heads}, {self.position_groups}, {self.dim}"
            )


class FastHubert(nn.Module):
    """Log-mel frames to frames of `config.dim`, four times fewer.

    >>> import torch
    >>> FastHubert(fast_hubert_tiny())(torch.zeros(1, 103, 80), torch.tensor([103])).values.shape
    torch.Size([1, 23, 64])
    """

    input = "features"

    def __init__(self, config: FastHubertConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.local_dim, self.num_layers = config.dim, config.local_dim, config.num_layers
        layers = tuple(zip(config.kernels, config.strides, strict=True))
        self.subsampling = Subsampling1d(config.input_dim, config.local_dim, layers, padding=False)
        self.local_norm = nn.LayerNorm(config.local_dim)
        self.project = Linear(config.local_dim, config.dim)
        self.dropout = Dropout(config.dropout)
        sizes = (config.dim, config.num_heads, config.ffn_dim, config.dropout)
        self.stack = TransformerStack(
            [TransformerLayer(*sizes, norm_first=config.norm_first) for _ in range(config.num_layers)],
            config.dim,
            norm_first=config.norm_first,
            position=ConvolutionalPosition(config.dim, config.position_kernel, config.position_groups),
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
        return self.config.input_frame_rate / self.subsampling.stride

    @property
    def receptive_field(self) -> int:
        """Input frames that the subsampling sees; positions and attention see the rest."""
        return self.subsampling.receptive_field

    def output_lengths(self, lengths: Count) -> Count:
        """Frames that come out for `lengths` that go in; exact."""
        return self.subsampling.output_lengths(lengths)

    def local(self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]) -> Features:
        """What the strided convolutions make."""
        frames, counts = self.subsampling(values, lengths)
        return Features(frames, counts, self.frame_rate)

    def embed(self, local: Features) -> Features:
        """Normed and projected: what masks are laid on."""
        return replace(local, values=self.dropout(self.project(self.local_norm(local.values))))

    def context(
        self, embedded: Features, layers: bool = False, between: Between | None = None
    ) -> Features | list[Features]:
        """The Transformer; see `TransformerStack`."""
        return self.stack(embedded, layers, between)

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch; with `layers` what enters the first layer and what comes out of each."""
        return self.context(self.embed(self.local(values, lengths)), layers)

    def attention_maps(self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]) -> list[Tensor]:
        """The attention of each layer `(batch, head, query, key)`."""
        return self.stack.attention_maps(self.embed(self.local(values, lengths)))


def build(config: FastHubertConfig) -> FastHubert:
    """The module of a configuration, with random weights."""
    return FastHubert(config)


def fast_hubert_base(**changes: Any) -> FastHubertConfig:
    """Twelve layers of 768, as HuBERT base."""
    return replace(FastHubertConfig(), **changes)


def fast_hubert_tiny(**changes: Any) -> FastHubertConfig:
    """Two narrow layers, for tests and demonstrations; no published size."""
    size = {
        "local_dim": 32,
        "dim": 64,
        "num_layers": 2,
        "num_heads": 2,
        "ffn_dim": 128,
        "dropout": 0.0,
        "layer_drop": 0.0,
    }
    return fast_hubert_base(**{**size, "position_kernel": 16, "position_groups": 4, **changes})
