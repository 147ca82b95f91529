"""wav2vec 2.0 with Conformer blocks (Wang et al., 2020, arXiv:2010.05171, as in fairseq's wav2vec2 `layer_type=conformer`).

The front end of wav2vec 2.0, Conformer blocks with batch norm, and a norm behind the last. Positions are relative
(Transformer-XL's), rotary, or none; rotary ones are turned before the projection of queries and keys, not behind it. What is
padding never reaches a convolution: fairseq and transformers let it in, so that there an item depends on its batch.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, overload

from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.core.types import Features
from sonorant.encoders.waveform_front import WaveformFront, WaveformFrontConfig
from sonorant.nn.attention import Attention, PositionTable
from sonorant.nn.conformer import ConformerBlock
from sonorant.nn.norm import NORMS
from sonorant.nn.rotated_attention import RotatedAttention
from sonorant.nn.transformer import Between, TransformerStack

__all__ = [
    "Wav2Vec2Conformer", "Wav2Vec2ConformerConfig", "build", "wav2vec2_conformer_large_rel_pos",
    "wav2vec2_conformer_large_rope", "wav2vec2_conformer_tiny",
]  # fmt: skip

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class Wav2Vec2ConformerConfig(WaveformFrontConfig):
    """The defaults are the large model with relative positions, 610 M parameters."""

    conv_norm: str = "layer"
    """After the convolutions: group (once, over the item), layer (each), none."""
    conv_bias: bool = True
    """Of the convolutions over the waveform."""
    dim: int = 1024
    """Width of the blocks."""
    num_layers: int = 24
    """Blocks."""
    num_heads: int = 16
    """Heads of the attention; must divide `dim`."""
    ffn_dim: int = 4096
    """Inner width of the feed-forwards."""
    kernel_size: int = 31
    """Frames that the depthwise convolution sees; odd."""
    position: str = "relative"
    """Positions in the attention: relative, rotary, none."""
    norm: str = "batch"
    """Inside the convolution module: batch as published; layer makes an item independent of its batch in training too."""
    attention_dropout: float = 0.1
    """On the attention weights."""
    layer_drop: float = 0.0
    """Share of blocks left out while training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_layers", "kernel_size"):
            at_least(name, getattr(self, name), 1)
        within("attention_dropout", self.attention_dropout, 0, 0.99)
        one_of("position", self.position, ("relative", "rotary", "none"))
        one_of("norm", self.norm, list(NORMS))
        if self.position == "rotary" and self.dim % (2 * self.num_heads):
            raise ConfigError(
                f"rotary positions need heads of an even width, got dim={self.dim} for {self.num_heads} heads"
            )


class Wav2Vec2Conformer(nn.Module):
    """Waveform → frames of `config.dim`, 50 a second.

    >>> import torch
    >>> encoder = Wav2Vec2Conformer(wav2vec2_conformer_tiny()).eval()
    >>> encoder(torch.randn(1, 16000), torch.tensor([16000])).values.shape
    torch.Size([1, 49, 64])
    """

    input = "waveform"

    def __init__(self, config: Wav2Vec2ConformerConfig) -> None:
        super().__init__()
        self.config, self.dim, self.num_layers = config, config.dim, config.num_layers
        self.front = WaveformFront(config)
        self.local_dim = self.front.dim
        self.stack = TransformerStack(
            [_block(config) for _ in range(config.num_layers)],
            config.dim,
            norm_first=True,
            table=PositionTable(config.position, config.dim, config.num_heads),
            dropout=config.dropout,
            layer_drop=config.layer_drop,
        )

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks."""
        return self.stack.blocks

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out."""
        return self.front.frame_rate

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees by convolutions, those of the blocks too."""
        stride = self.front.convs.geometry.stride
        return self.front.receptive_field + self.num_layers * (self.config.kernel_size - 1) * stride

    def output_lengths(self, lengths: Count) -> Count:
        """Frames for samples; exact."""
        return self.front.output_lengths(lengths)

    def local(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> Features:
        """What the convolutions over the waveform make."""
        return self.front.local(values, lengths)

    def embed(self, local: Features) -> Features:
        """Normed and projected: what masks are laid on."""
        return self.front.embed(local)

    def context(
        self, embedded: Features, layers: bool = False, between: Between | None = None
    ) -> Features | list[Features]:
        """The blocks; see `TransformerStack`."""
        return self.stack(embedded, layers, between)  # type: ignore[no-any-return]

    @overload
    def forward(self, values: Tensor, lengths: Tensor, layers: Literal[False] = False) -> Features: ...
    @overload
    def forward(self, values: Tensor, lengths: Tensor, layers: Literal[True]) -> list[Features]: ...
    def forward(
        self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch; with `layers` what enters the first block and what comes out of each."""
        return self.context(self.embed(self.local(values, lengths)), layers)

    def attention_maps(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> list[Tensor]:
        """The attention of each block `(batch, head, query, key)`."""
        return self.stack.attention_maps(self.embed(self.local(values, lengths)))


def _block(config: Wav2Vec2ConformerConfig) -> ConformerBlock:
    sizes = (config.dim, config.num_heads, config.attention_dropout)
    attention = RotatedAttention(*sizes) if config.position == "rotary" else Attention(*sizes, config.position)
    return ConformerBlock(
        config.dim,
        config.num_heads,
        config.ffn_dim,
        config.kernel_size,
        config.dropout,
        norm=config.norm,
        conv_bias=False,
        attention=attention,
    )


def build(config: Wav2Vec2ConformerConfig) -> Wav2Vec2Conformer:
    """The module of a configuration, with random weights."""
    return Wav2Vec2Conformer(config)


# --- sizes ------------------------------------------------------------------------------------------------------------


def wav2vec2_conformer_large_rel_pos(**changes: Any) -> Wav2Vec2ConformerConfig:
    """610 M parameters, relative positions (facebook/wav2vec2-conformer-rel-pos-large)."""
    return replace(Wav2Vec2ConformerConfig(), **changes)


def wav2vec2_conformer_large_rope(**changes: Any) -> Wav2Vec2ConformerConfig:
    """585 M parameters, rotary positions (facebook/wav2vec2-conformer-rope-large-960h-ft)."""
    return wav2vec2_conformer_large_rel_pos(**{"position": "rotary", **changes})


def wav2vec2_conformer_tiny(**changes: Any) -> Wav2Vec2ConformerConfig:
    """Two narrow blocks, for tests and demonstrations; no published size."""
    convs = ((32, 10, 5), *[(32, 3, 2)] * 4, *[(32, 2, 2)] * 2)
    size = {"conv_layers": convs, "dim": 64, "num_layers": 2, "num_heads": 2, "ffn_dim": 128, "kernel_size": 7}
    still = {"dropout": 0.0, "attention_dropout": 0.0}
    return wav2vec2_conformer_large_rel_pos(**{**size, **still, **changes})
