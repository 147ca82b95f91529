"""w2v-BERT 2.0, the speech encoder of Seamless (arXiv:2312.05187, section 3.2.1; w2v-BERT: arXiv:2108.06209).

Log-mel frames, two side by side (160 numbers, 50 times a second), a norm, a projection, and Conformer blocks whose
convolution looks back only and whose attention adds a learnt score for each clipped distance. On top, where it is asked for,
a length adaptor: strided convolutions with attention, which thin frames out before a decoder of text.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, overload

from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import Geometry, zero_padding
from sonorant.core.types import Features
from sonorant.nn.attention import Attention, PositionTable
from sonorant.nn.conformer import ConformerBlock
from sonorant.nn.dropout import Dropout
from sonorant.nn.linear import Linear
from sonorant.nn.masking import attention_mask
from sonorant.nn.packed import pack
from sonorant.nn.position import ShawBias
from sonorant.nn.rotated_attention import RotatedAttention
from sonorant.nn.transformer import Between, TransformerStack

__all__ = ["W2vBert", "W2vBertConfig", "build", "w2v_bert_600m", "w2v_bert_base", "w2v_bert_tiny"]

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class W2vBertConfig:
    """The defaults are the published model (arXiv:2312.05187, table 3)."""

    input_dim: int = 160
    """Width of the features that come in: two frames of 80 mel bands, each band normed over the item."""
    input_frame_rate: float = 50.0
    """Frames a second that come in."""
    dim: int = 1024
    """Width of the blocks."""
    num_layers: int = 24
    """Conformer blocks."""
    num_heads: int = 16
    """Heads of the attention; must divide `dim`."""
    ffn_dim: int = 4096
    """Inner width of the feed-forwards."""
    kernel_size: int = 31
    """Frames that the depthwise convolution sees, itself and those before; odd."""
    position: str = "shaw"
    """Positions in the attention: shaw (a vector for each clipped distance, as published), relative, rotary, none."""
    max_distance: int = 64
    """Frames back after which all distances are one; shaw only."""
    max_ahead: int = 8
    """The same for frames ahead."""
    dropout: float = 0.0
    """Before each residual sum."""
    attention_dropout: float = 0.0
    """On the attention weights."""
    conv_dropout: float = 0.1
    """On what comes out of the convolution modules."""
    layer_drop: float = 0.1
    """Share of blocks left out while training."""
    adapter_layers: int = 0
    """Layers of the length adaptor on top; none where 0."""
    adapter_dim: int = 0
    """Width of the length adaptor, and so of what comes out; `dim` where 0."""
    adapter_kernel: int = 3
    """Frames that its convolutions see."""
    adapter_stride: int = 2
    """Frames that become one, in each of its layers."""
    adapter_ffn: bool = False
    """Half a feed-forward before it."""

    def __post_init__(self) -> None:
        for name in ("input_dim", "dim", "num_layers", "num_heads", "ffn_dim", "kernel_size"):
            at_least(name, getattr(self, name), 1)
        for name in ("max_distance", "max_ahead", "adapter_layers", "adapter_dim"):
            at_least(name, getattr(self, name), 0)
        for name in ("adapter_kernel", "adapter_stride"):
            at_least(name, getattr(self, name), 1)
        for name in ("dropout", "attention_dropout", "conv_dropout", "layer_drop"):
            within(name, getattr(self, name), 0, 0.99)
        one_of("position", self.position, ("shaw", "relative", "rotary", "none"))
        for width in (self.dim, self.output_dim):
            if width % self.num_heads:
                raise ConfigError(f"num_heads must divide dim, got num_heads={self.num_heads} and dim={width}")
        if not self.adapter_layers and (self.adapter_ffn or self.adapter_dim):
            raise ConfigError("adapter_ffn and adapter_dim need adapter_layers of at least 1")

    @property
    def output_dim(self) -> int:
        """Width of what comes out."""
        return self.adapter_dim or self.dim


def _relu_ffn(dim: int, config: W2vBertConfig) -> nn.Sequential:
    inner = Linear(dim, config.ffn_dim)
    return nn.Sequential(inner, nn.ReLU(), Linear(config.ffn_dim, dim), Dropout(config.dropout))


class AdaptorLayer(nn.Module):
    """Strided gated convolutions of the residual and of what attends, attention among the fewer frames, a feed-forward."""

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        dim, kernel, stride = config.output_dim, config.adapter_kernel, config.adapter_stride
        self.geometry = Geometry.conv(kernel, stride, stride // 2)
        self.residual_norm, self.attention_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.residual_conv = nn.Conv1d(dim, 2 * dim, kernel, stride, stride // 2)
        self.attention_conv = nn.Conv1d(dim, 2 * dim, kernel, stride, stride // 2)
        self.attention = Attention(dim, config.num_heads, config.attention_dropout)
        self.dropout = Dropout(config.conv_dropout)
        self.ffn_norm, self.ffn = nn.LayerNorm(dim), _relu_ffn(dim, config)

    def forward(self, features: Features) -> Features:
        values, lengths = features.values, self.geometry.output_lengths(features.lengths)
        short = max(0, self.geometry.input_length(1) - values.shape[1])
        values = nn.functional.pad(values, (0, 0, 0, short))  # zeros are cut off again by the lengths
        residual = self._thinned(self.residual_conv, self.residual_norm(values), features.lengths)
        inner = self._thinned(self.attention_conv, self.attention_norm(values), features.lengths)
        mask = attention_mask(lengths, inner.shape[1])
        values = self.dropout(self.attention(inner, mask)) + residual
        values = values + self.ffn(self.ffn_norm(values))
        return Features(zero_padding(values, lengths), lengths, features.frame_rate / self.geometry.stride)

    def _thinned(self, conv: nn.Module, values: Tensor, lengths: Tensor) -> Tensor:
        channels = conv(zero_padding(values, lengths).transpose(1, 2))
        return nn.functional.glu(channels, dim=1).transpose(1, 2)


class Adaptor(nn.Module):
    """Half a feed-forward and a projection where they are asked for, then the layers."""

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        self.ffn = _relu_ffn(config.dim, config) if config.adapter_ffn else None
        self.project = None
        if config.output_dim != config.dim:
            self.project = nn.Sequential(Linear(config.dim, config.output_dim), nn.LayerNorm(config.output_dim))
        self.layers = nn.ModuleList(AdaptorLayer(config) for _ in range(config.adapter_layers))

    def forward(self, features: Features) -> Features:
        values = features.values
        if self.ffn is not None:
            values = values + 0.5 * self.ffn(values)
        if self.project is not None:
            values = self.project(values)
        features = replace(features, values=values)
        for layer in self.layers:
            features = layer(features)
        return features


class W2vBert(nn.Module):
    """Stacked log-mel frames → frames of `config.output_dim`.

    >>> import torch
    >>> encoder = W2vBert(w2v_bert_tiny()).eval()
    >>> encoder(torch.randn(1, 50, 160), torch.tensor([50])).values.shape
    torch.Size([1, 50, 64])
    """

    input = "features"

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        self.config, self.dim, self.num_layers = config, config.output_dim, config.num_layers
        self.local_dim = config.input_dim
        self.local_norm = nn.LayerNorm(config.input_dim)
        self.project = Linear(config.input_dim, config.dim)
        self.stack = TransformerStack(
            [_block(config) for _ in range(config.num_layers)],
            config.dim,
            norm_first=True,
            table=PositionTable(config.position, config.dim, config.num_heads),
            dropout=config.dropout,
            layer_drop=config.layer_drop,
        )
        self.stack.norm = nn.Identity()  # type: ignore[assignment]  # each block ends in a norm; none stands behind them
        self.adaptor = Adaptor(config) if config.adapter_layers else None

    @property
    def blocks(self) -> nn.ModuleList:
        """The Conformer blocks."""
        return self.stack.blocks

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out."""
        return self.config.input_frame_rate / self.config.adapter_stride**self.config.adapter_layers

    @property
    def receptive_field(self) -> int:
        """Input frames that one frame sees by convolution alone."""
        config = self.config
        seen = Geometry(receptive_field=1 + config.num_layers * (config.kernel_size - 1))
        for _ in range(config.adapter_layers):
            seen = seen.then(Geometry.conv(config.adapter_kernel, config.adapter_stride))
        return seen.receptive_field

    def output_lengths(self, lengths: Count) -> Count:
        """Frames that come out for `lengths` that go in; exact."""
        config = self.config
        for _ in range(config.adapter_layers):
            geometry = Geometry.conv(config.adapter_kernel, config.adapter_stride, config.adapter_stride // 2)
            lengths = geometry.output_lengths(lengths)
        return lengths

    def local(self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]) -> Features:
        """The features as they are."""
        return Features(zero_padding(values, lengths), lengths, self.config.input_frame_rate)

    def normed(self, local: Features) -> Features:
        """Features behind their layer norm: what is quantised and contrasted."""
        return replace(local, values=self.local_norm(local.values))

    def embed(self, local: Features) -> Features:
        """Normed and projected: what masks are laid on."""
        values, layout = pack(local)
        return layout.features(self.project(self.local_norm(values)), local.frame_rate)

    def context(
        self, embedded: Features, layers: bool = False, between: Between | None = None
    ) -> Features | list[Features]:
        """The blocks and, on the last one's frames, the length adaptor; see `TransformerStack`."""
        if self.adaptor is None:
            return self.stack(embedded, layers, between)  # type: ignore[no-any-return]
        if not layers:
            return self.adaptor(self.stack(embedded, False, between))  # type: ignore[no-any-return]
        outputs = self.stack(embedded, True, between)
        return [*outputs[:-1], self.adaptor(outputs[-1])]

    @overload
    def forward(self, values: Tensor, lengths: Tensor, layers: Literal[False] = False) -> Features: ...
    @overload
    def forward(self, values: Tensor, lengths: Tensor, layers: Literal[True]) -> list[Features]: ...
    def forward(
        self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch; with `layers` what enters the first block and what comes out of each."""
        return self.context(self.embed(self.local(values, lengths)), layers)

    def attention_maps(
        self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]
    ) -> list[Float[Tensor, "batch head query key"]]:
        """The attention of each block."""
        return self.stack.attention_maps(self.embed(self.local(values, lengths)))


def _block(config: W2vBertConfig) -> ConformerBlock:
    sizes = (config.dim, config.num_heads, config.attention_dropout)
    attention: Any
    if config.position == "rotary":
        attention = RotatedAttention(*sizes)
    else:
        attention = Attention(*sizes, config.position)
        if config.position == "shaw":
            attention.shaw = ShawBias(config.dim // config.num_heads, config.max_distance, config.max_ahead)
    block = ConformerBlock(
        config.dim,
        config.num_heads,
        config.ffn_dim,
        config.kernel_size,
        config.dropout,
        causal=True,
        conv_bias=False,
        attention=attention,
    )
    block.convolution.dropout = Dropout(config.conv_dropout)
    return block


def build(config: W2vBertConfig) -> W2vBert:
    """The module of a configuration, with random weights."""
    return W2vBert(config)


# --- sizes ------------------------------------------------------------------------------------------------------------


def w2v_bert_600m(**changes: Any) -> W2vBertConfig:
    """580 M parameters (facebook/w2v-bert-2.0)."""
    return replace(W2vBertConfig(), **changes)


def w2v_bert_base(**changes: Any) -> W2vBertConfig:
    """As wide and deep as wav2vec 2.0 base; no published size."""
    return w2v_bert_600m(**{"dim": 768, "num_layers": 12, "num_heads": 12, "ffn_dim": 3072, **changes})


def w2v_bert_tiny(**changes: Any) -> W2vBertConfig:
    """Two narrow blocks, for tests and demonstrations; no published size."""
    size = {"dim": 64, "num_layers": 2, "num_heads": 2, "ffn_dim": 128, "kernel_size": 7}
    return w2v_bert_600m(**{**size, "conv_dropout": 0.0, "layer_drop": 0.0, **changes})
