"""wav2vec 2.0 (Baevski et al., 2020, arXiv:2006.11477) and the encoders that share its body: HuBERT (arXiv:2106.07447),
WavLM (arXiv:2110.13900), UniSpeech-SAT (arXiv:2110.05752), data2vec audio (arXiv:2202.03555), XLS-R (arXiv:2111.09296).

Convolutions over the waveform, a projection, positions by convolution, Transformer layers. Read `Wav2Vec2Config`, then
`Wav2Vec2`; the published sizes stand at the end, the tables of foreign keys in `encoders/keys/`. Where we differ: an item
comes out the same in any batch, also with the group norm of the base models (`over_padding=True` reproduces what others
do there); and no frame of padding is computed on a CPU.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar, overload

from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.types import Features
from sonorant.encoders.waveform_front import WaveformFrontConfig
from sonorant.nn.dropout import Dropout
from sonorant.nn.gated_attention import BucketBias, GatedAttention
from sonorant.nn.linear import Linear
from sonorant.nn.packed import pack
from sonorant.nn.position import ConvolutionalPosition, StackedConvolutionalPosition
from sonorant.nn.transformer import Between, TransformerLayer, TransformerStack
from sonorant.nn.waveform import WaveformConvs, normalised

__all__ = [
    "Wav2Vec2", "Wav2Vec2Config", "build", "data2vec_audio_base", "data2vec_audio_large", "dinosr_base", "hubert_base",
    "hubert_large", "hubert_xlarge", "unispeech_sat_base", "unispeech_sat_large", "wav2vec2_base", "wav2vec2_large",
    "wav2vec2_large_lv60", "wav2vec2_tiny", "wavlm_base", "wavlm_large", "wavlm_tiny", "xls_r_1b", "xls_r_2b",
    "xls_r_300m", "xlsr_53",
]  # fmt: skip

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class Wav2Vec2Config(WaveformFrontConfig):
    """A speech Transformer on the waveform; the defaults are wav2vec 2.0 base (section 4.2)."""

    num_layers: int = 12
    """Transformer layers."""
    norm_first: bool = False
    """Norms before the parts of a layer (large models) rather than after them."""
    attention: str = "plain"
    """plain, or gated: WavLM's gated bias of distances."""
    num_buckets: int = 320
    """Buckets of distances; gated attention only (WavLM, section 3.1)."""
    max_distance: int = 800
    """Frames; gated attention only."""
    position: str = "conv"
    """conv: one wide convolution; conv_stack: data2vec's stack of narrow ones, which `over_padding` makes read what the
    one before wrote into the padding too."""
    position_kernel: int = 128
    """Frames that a convolution of positions sees (section 2); 19 in data2vec."""
    position_groups: int = 16
    """Groups of its channels."""
    position_depth: int = 5
    """Convolutions of conv_stack."""
    attention_dropout: float = 0.1
    """On the attention weights."""
    inner_dropout: float = 0.0
    """Inside the feed-forwards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_layers", "position_kernel", "position_groups", "position_depth"):
            at_least(name, getattr(self, name), 1)
        within("attention_dropout", self.attention_dropout, 0, 0.99)
        within("inner_dropout", self.inner_dropout, 0, 0.99)
        one_of("attention", self.attention, ("plain", "gated"))
        one_of("position", self.position, ("conv", "conv_stack"))


class Wav2Vec2(nn.Module):
    """Waveform → frames of `config.dim`, 50 a second.

    >>> import torch
    >>> encoder = Wav2Vec2(wav2vec2_tiny()).eval()
    >>> encoder(torch.randn(1, 16000), torch.tensor([16000])).values.shape
    torch.Size([1, 49, 64])
    """

    input = "waveform"

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        self.config = config
        self.dim, self.num_layers = config.dim, config.num_layers
        self.convs = WaveformConvs(config.conv_layers, config.conv_norm, config.conv_bias, config.over_padding)
        self.local_dim = self.convs.dim
        self.local_norm = nn.LayerNorm(self.local_dim) if config.local_norm else nn.Identity()
        self.project = Linear(self.local_dim, config.dim)
        self.dropout = Dropout(config.dropout)
        self.stack = _stack(config)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers."""
        return self.stack.blocks

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.convs.geometry.frame_rate(self.config.sample_rate)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees by the convolutions over the waveform; positions and attention see the rest."""
        return self.convs.geometry.receptive_field

    def output_lengths(self, lengths: Count) -> Count:
        """Frames for samples; exact."""
        return self.convs.output_lengths(lengths)  # type: ignore[no-any-return]

    def local(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> Features:
        """What the convolutions make (z in the paper, before its norm)."""
        if self.config.normalise:
            values = normalised(values, lengths)
        frames, counts = self.convs(values, lengths)
        return Features(frames, counts, self.frame_rate)

    def normed(self, local: Features) -> Features:
        """Local features behind their layer norm: what is quantised and contrasted."""
        return replace(local, values=self.local_norm(local.values))

    def embed(self, local: Features) -> Features:
        """Normed and projected: what masks are laid on."""
        values, layout = pack(local)
        return layout.features(self.dropout(self.project(self.local_norm(values))), local.frame_rate)

    def context(
        self, embedded: Features, layers: bool = False, between: Between | None = None
    ) -> Features | list[Features]:
        """The Transformer; see `TransformerStack`."""
        return self.stack(embedded, layers, between)

    @overload
    def forward(self, values: Tensor, lengths: Tensor, layers: Literal[False] = False) -> Features: ...
    @overload
    def forward(self, values: Tensor, lengths: Tensor, layers: Literal[True]) -> list[Features]: ...
    def forward(
        self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch; with `layers` what enters the first layer and what comes out of each."""
        return self.context(self.embed(self.local(values, lengths)), layers)

    def attention_maps(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> list[Tensor]:
        """The attention of each layer `(batch, head, query, key)`."""
        return self.stack.attention_maps(self.embed(self.local(values, lengths)))


def _stack(config: Wav2Vec2Config) -> TransformerStack:
    gated = config.attention == "gated"
    attention = partial(GatedAttention, config.dim, config.num_heads, config.attention_dropout)
    blocks = [
        TransformerLayer(
            config.dim,
            config.num_heads,
            config.ffn_dim,
            config.dropout,
            norm_first=config.norm_first,
            attention_dropout=config.attention_dropout,
            inner_dropout=config.inner_dropout,
            attention=attention() if gated else None,
        )
        for _ in range(config.num_layers)
    ]
    return TransformerStack(
        blocks,
        config.dim,
        norm_first=config.norm_first,
        position=_position(config),
        table=BucketBias(config.num_heads, config.num_buckets, config.max_distance) if gated else None,
        dropout=config.dropout,
        layer_drop=config.layer_drop,
    )


def _position(config: Wav2Vec2Config) -> nn.Module:
    if config.position == "conv":
        return ConvolutionalPosition(config.dim, config.position_kernel, config.position_groups)
    return StackedConvolutionalPosition(
        config.dim, config.position_kernel, config.position_groups, config.position_depth, config.over_padding
    )


def build(config: Wav2Vec2Config) -> Wav2Vec2:
    """The module of a configuration, with random weights."""
    return Wav2Vec2(config)


# --- sizes ------------------------------------------------------------------------------------------------------------


def wav2vec2_base(**changes: Any) -> Wav2Vec2Config:
    """95 M parameters (arXiv:2006.11477, section 4.2)."""
    return replace(Wav2Vec2Config(), **changes)


def wav2vec2_large(**changes: Any) -> Wav2Vec2Config:
    """317 M parameters, as trained on LibriSpeech: norms as in base (section 4.2)."""
    size = {"dim": 1024, "num_layers": 24, "num_heads": 16, "ffn_dim": 4096, "layer_drop": 0.2}
    return wav2vec2_base(**{**size, **changes})


def wav2vec2_large_lv60(**changes: Any) -> Wav2Vec2Config:
    """The large model as trained on Libri-Light: normalised items, layer norms in the convolutions, norms first (the authors'
    wav2vec2_large_librivox.yaml)."""
    norms = {"normalise": True, "conv_norm": "layer", "conv_bias": True, "norm_first": True}
    return wav2vec2_large(**{**norms, "layer_drop": 0.0, "dropout": 0.0, "attention_dropout": 0.0, **changes})


def xlsr_53(**changes: Any) -> Wav2Vec2Config:
    """Large, 53 languages (arXiv:2006.13979)."""
    return wav2vec2_large_lv60(**changes)


def xls_r_300m(**changes: Any) -> Wav2Vec2Config:
    """Large, 128 languages (arXiv:2111.09296, table 2)."""
    return wav2vec2_large_lv60(**changes)


def xls_r_1b(**changes: Any) -> Wav2Vec2Config:
    """0.96 B parameters (arXiv:2111.09296, table 2)."""
    return xls_r_300m(**{"dim": 1280, "num_layers": 48, "ffn_dim": 5120, **changes})


def xls_r_2b(**changes: Any) -> Wav2Vec2Config:
    """2.16 B parameters (arXiv:2111.09296, table 2)."""
    return xls_r_300m(**{"dim": 1920, "num_layers": 48, "ffn_dim": 7680, **changes})


def hubert_base(**changes: Any) -> Wav2Vec2Config:
    """95 M parameters (arXiv:2106.07447, table 1)."""
    return wav2vec2_base(**changes)


def hubert_large(**changes: Any) -> Wav2Vec2Config:
    """317 M parameters (arXiv:2106.07447, table 1)."""
    return wav2vec2_large_lv60(**{"conv_bias": False, **changes})


def hubert_xlarge(**changes: Any) -> Wav2Vec2Config:
    """964 M parameters (arXiv:2106.07447, table 1)."""
    return hubert_large(**{"dim": 1280, "num_layers": 48, "ffn_dim": 5120, **changes})


def wavlm_base(**changes: Any) -> Wav2Vec2Config:
    """94.7 M parameters; base+ is the same, trained on more (arXiv:2110.13900, section 4.1)."""
    return wav2vec2_base(**{"attention": "gated", **changes})


def wavlm_large(**changes: Any) -> Wav2Vec2Config:
    """316.6 M parameters (arXiv:2110.13900, section 4.1)."""
    return wav2vec2_large_lv60(**{"attention": "gated", "conv_bias": False, **changes})


def unispeech_sat_base(**changes: Any) -> Wav2Vec2Config:
    """94.7 M parameters (arXiv:2110.05752)."""
    return wav2vec2_base(**changes)


def unispeech_sat_large(**changes: Any) -> Wav2Vec2Config:
    """316.6 M parameters (arXiv:2110.05752)."""
    return wav2vec2_large_lv60(**changes)


def data2vec_audio_base(**changes: Any) -> Wav2Vec2Config:
    """93 M parameters: layer norms in the convolutions, positions from a stack (arXiv:2202.03555, section 4)."""
    position = {"position": "conv_stack", "position_kernel": 19, "position_depth": 5}
    return wav2vec2_base(**{**position, "normalise": True, "conv_norm": "layer", **changes})


def data2vec_audio_large(**changes: Any) -> Wav2Vec2Config:
    """313 M parameters."""
    size = {"dim": 1024, "num_layers": 24, "num_heads": 16, "ffn_dim": 4096}
    return data2vec_audio_base(**{**size, **changes})


def dinosr_base(**changes: Any) -> Wav2Vec2Config:
    """The base network with positions from five convolutions (arXiv:2305.10005, section 4.1)."""
    return wav2vec2_base(**{"position": "conv_stack", "position_kernel": 19, "position_depth": 5, **changes})


def wav2vec2_tiny(**changes: Any) -> Wav2Vec2Config:
    """Two narrow layers, for tests and demonstrations; no published size."""
    convs = ((32, 10, 5), *[(32, 3, 2)] * 4, *[(32, 2, 2)] * 2)
    size = {"conv_layers": convs, "dim": 64, "num_layers": 2, "num_heads": 2, "ffn_dim": 128}
    still = {"dropout": 0.0, "attention_dropout": 0.0, "layer_drop": 0.0}
    return wav2vec2_base(**{**size, **still, "position_kernel": 16, "position_groups": 4, **changes})


def wavlm_tiny(**changes: Any) -> Wav2Vec2Config:
    """The tiny model with WavLM's attention."""
    return wav2vec2_tiny(**{"attention": "gated", "num_buckets": 32, "max_distance": 80, **changes})
