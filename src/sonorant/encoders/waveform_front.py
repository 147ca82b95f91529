"""From the waveform to what blocks take, shared by the families that begin as wav2vec 2.0 does: convolutions, a norm, a
projection. A family's configuration extends `WaveformFrontConfig`, its module holds a `WaveformFront`; that of wav2vec 2.0
itself (`encoders/wav2vec2.py`) holds the parts one by one, whose names are those of its stored checkpoints.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.core.types import Features
from sonorant.nn.dropout import Dropout
from sonorant.nn.linear import Linear
from sonorant.nn.packed import pack
from sonorant.nn.waveform import WAV2VEC2_LAYERS, WaveformConvs, normalised

__all__ = ["WaveformFront", "WaveformFrontConfig"]

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class WaveformFrontConfig:
    """The front end, and the sizes that all its families have."""

    sample_rate: int = 16000
    """Hz."""
    normalise: bool = False
    """Bring each item to zero mean and unit variance first, as most large models were trained; load_encoder sets it."""
    conv_layers: tuple[tuple[int, int, int], ...] = WAV2VEC2_LAYERS
    """(channels, kernel, stride) of each convolution (arXiv:2006.11477, section 4.2)."""
    conv_norm: str = "group"
    """After the convolutions: group (once, over the item; base models), layer (each; large ones), none."""
    conv_bias: bool = False
    """Of the convolutions."""
    over_padding: bool = False
    """Take the group norm's statistics over the padded batch, as others do: items then depend on their neighbours."""
    local_norm: bool = True
    """A layer norm before the projection; what is quantised and contrasted is what comes out of it."""
    dim: int = 768
    """Width of the layers."""
    num_heads: int = 12
    """Heads of the attention; must divide `dim`."""
    ffn_dim: int = 3072
    """Inner width of the feed-forwards."""
    dropout: float = 0.1
    """Before each residual sum, on what is embedded and on what enters the first layer."""
    layer_drop: float = 0.05
    """Share of layers left out while training."""

    def __post_init__(self) -> None:
        for name in ("sample_rate", "dim", "num_heads", "ffn_dim"):
            at_least(name, getattr(self, name), 1)
        within("dropout", self.dropout, 0, 0.99)
        within("layer_drop", self.layer_drop, 0, 0.99)
        one_of("conv_norm", self.conv_norm, ("group", "layer", "none"))
        if self.dim % self.num_heads:
            raise ConfigError(f"num_heads must divide dim, got num_heads={self.num_heads} and dim={self.dim}")


class WaveformFront(nn.Module):
    """Waveform → local frames → embedded frames.

    Args:
        config: sizes.
        always_project: also where the convolutions are as wide as the layers.
    """

    def __init__(self, config: WaveformFrontConfig, always_project: bool = True) -> None:
        super().__init__()
        self.config = config
        self.convs = WaveformConvs(config.conv_layers, config.conv_norm, config.conv_bias, config.over_padding)
        self.dim = self.convs.dim
        self.local_norm = nn.LayerNorm(self.dim) if config.local_norm else nn.Identity()
        needed = always_project or self.dim != config.dim
        self.project = Linear(self.dim, config.dim) if needed else nn.Identity()
        self.dropout = Dropout(config.dropout)

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.convs.geometry.frame_rate(self.config.sample_rate)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees."""
        return self.convs.geometry.receptive_field

    def output_lengths(self, lengths: Count) -> Count:
        """Frames for samples; exact."""
        return self.convs.output_lengths(lengths)  # type: ignore[no-any-return]

    def local(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> Features:
        """What the convolutions make."""
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
