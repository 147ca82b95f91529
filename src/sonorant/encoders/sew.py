"""SEW, squeezed and efficient wav2vec (Wu et al., 2021, arXiv:2109.06870).

wav2vec 2.0 with thin convolutions that widen as frames get fewer (section 4.3), and layers that run at half the frame rate:
neighbouring frames are averaged on the way in, together with positions from a strided convolution, and a wider projection
makes two frames of each on the way out (section 4.2). An item of an odd number of frames ends in a frame of zeros, as
published. What comes out of the layers, but for the last, is at the squeezed frame rate.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, within
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features
from sonorant.encoders.waveform_front import WaveformFront, WaveformFrontConfig
from sonorant.nn.linear import Linear
from sonorant.nn.transformer import Between, TransformerLayer, TransformerStack

__all__ = ["COMPACT_LAYERS", "Sew", "SewConfig", "build", "sew_mid", "sew_small", "sew_tiny", "sew_toy"]

Count = TypeVar("Count", int, Tensor)

COMPACT_LAYERS: tuple[tuple[int, int, int], ...] = (
    (64, 10, 5), (128, 3, 2), (128, 1, 1), (128, 3, 2), (128, 1, 1), (256, 3, 2), (256, 1, 1), (256, 3, 2), (256, 1, 1),
    (512, 2, 2), (512, 1, 1), (512, 2, 2), (512, 1, 1),
)  # fmt: skip
"""WFE-C of section 4.3 with 64 channels and one more convolution of size 1 behind each."""


@dataclass(frozen=True, kw_only=True)
class SewConfig(WaveformFrontConfig):
    """The defaults are SEW-small."""

    conv_layers: tuple[tuple[int, int, int], ...] = COMPACT_LAYERS
    """(channels, kernel, stride) of each convolution (section 4.3)."""
    num_layers: int = 12
    """Transformer layers."""
    squeeze: int = 2
    """Frames that become one in the layers (section 4.2)."""
    position_kernel: int = 31
    """Frames that the convolution of positions sees."""
    position_groups: int = 16
    """Groups of its channels."""
    attention_dropout: float = 0.1
    """On the attention weights."""
    inner_dropout: float = 0.0
    """Inside the feed-forwards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_layers", "squeeze", "position_kernel", "position_groups"):
            at_least(name, getattr(self, name), 1)
        within("attention_dropout", self.attention_dropout, 0, 0.99)
        within("inner_dropout", self.inner_dropout, 0, 0.99)
        if self.dim % self.position_groups:
            raise ConfigError(
                f"position_groups must divide dim, got position_groups={self.position_groups} and dim={self.dim}"
            )


class Squeeze(nn.Module):
    """The mean of neighbouring frames, and GELU of a strided convolution for positions."""

    def __init__(self, config: SewConfig) -> None:
        super().__init__()
        self.factor = config.squeeze
        kernel, groups = config.position_kernel, config.position_groups
        # Half a kernel of zeros in front of the first frame; behind the last, what gives as many frames as the means have.
        self.around = (kernel // 2, kernel - kernel // 2 - config.squeeze)
        conv = nn.Conv1d(config.dim, config.dim, kernel, config.squeeze, groups=groups)
        nn.init.normal_(conv.weight, std=(4.0 / (kernel * config.dim)) ** 0.5)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.conv = nn.utils.parametrizations.weight_norm(conv, dim=2)

    def forward(self, features: Features) -> Features:
        lengths = features.lengths // self.factor
        values = zero_padding(features.values, features.lengths)
        # Too short for one frame: zeros are cut off again by the lengths.
        values = nn.functional.pad(values, (0, 0, 0, torch.sym_max(0, self.factor - values.shape[1])))
        channels = values.transpose(1, 2)
        means = nn.functional.avg_pool1d(channels, self.factor)
        positions = nn.functional.gelu(self.conv(nn.functional.pad(channels, self.around)))
        squeezed = (means + positions).transpose(1, 2)
        return Features(zero_padding(squeezed, lengths), lengths, features.frame_rate / self.factor)


class Unsqueeze(nn.Module):
    """GELU of a projection to as many frames as were squeezed."""

    def __init__(self, config: SewConfig) -> None:
        super().__init__()
        self.factor = config.squeeze
        self.project = Linear(config.dim, config.dim * config.squeeze)
        nn.init.kaiming_normal_(self.project.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.project.bias)

    def forward(self, features: Features, like: Features) -> Features:
        """As many frames as `like` has, the last ones of an item that could not be squeezed being zeros."""
        values = nn.functional.gelu(self.project(features.values)).unflatten(-1, (self.factor, -1)).flatten(1, 2)
        values = zero_padding(values, features.lengths * self.factor)
        # Padded whether or not frames are missing, so that an exported program has no branch here.
        values = nn.functional.pad(values, (0, 0, 0, self.factor))[:, : like.values.shape[1]]
        return Features(values, like.lengths, like.frame_rate)


class Sew(nn.Module):
    """Waveform → frames of `config.dim`, 50 a second, through layers at 25.

    >>> encoder = Sew(sew_toy()).eval()
    >>> layers = encoder(torch.randn(1, 16000), torch.tensor([16000]), layers=True)
    >>> [(layer.values.shape[1], layer.frame_rate) for layer in layers]
    [(24, 25.0), (24, 25.0), (49, 50.0)]
    """

    input = "waveform"

    def __init__(self, config: SewConfig) -> None:
        super().__init__()
        self.config, self.dim, self.num_layers = config, config.dim, config.num_layers
        self.front = WaveformFront(config, always_project=False)
        self.local_dim = self.front.dim
        self.squeeze = Squeeze(config)
        self.stack = TransformerStack(
            [
                TransformerLayer(
                    config.dim,
                    config.num_heads,
                    config.ffn_dim,
                    config.dropout,
                    norm_first=False,
                    attention_dropout=config.attention_dropout,
                    inner_dropout=config.inner_dropout,
                )
                for _ in range(config.num_layers)
            ],
            config.dim,
            norm_first=False,
            dropout=config.dropout,
            layer_drop=config.layer_drop,
        )
        self.unsqueeze = Unsqueeze(config)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers."""
        return self.stack.blocks

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out."""
        return self.front.frame_rate

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees by the convolutions over the waveform."""
        return self.front.receptive_field

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
        """Squeezed, through the layers, and back; with `layers` the last one alone is at the full frame rate."""
        if not layers:
            return self.unsqueeze(self.stack(self.squeeze(embedded), False, between), embedded)  # type: ignore[no-any-return]
        outputs = self.stack(self.squeeze(embedded), True, between)
        return [*outputs[:-1], self.unsqueeze(outputs[-1], embedded)]

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
        """The attention of each layer `(batch, head, query, key)` among squeezed frames."""
        return self.stack.attention_maps(self.squeeze(self.embed(self.local(values, lengths))))


def build(config: SewConfig) -> Sew:
    """The module of a configuration, with random weights."""
    return Sew(config)


# --- sizes ------------------------------------------------------------------------------------------------------------


def sew_small(**changes: Any) -> SewConfig:
    """89.6 M parameters (arXiv:2109.06870)."""
    return replace(SewConfig(), **changes)


def sew_tiny(**changes: Any) -> SewConfig:
    """40.7 M parameters (arXiv:2109.06870)."""
    return sew_small(**{"dim": 512, "num_heads": 8, "ffn_dim": 2048, **changes})


def sew_mid(**changes: Any) -> SewConfig:
    """174.7 M parameters, 24 layers (arXiv:2109.06870)."""
    return sew_small(**{"num_layers": 24, "layer_drop": 0.2, **changes})


def sew_toy(**changes: Any) -> SewConfig:
    """Two narrow layers, for tests and demonstrations; no published size."""
    convs = ((32, 10, 5), *[(32, 3, 2)] * 4, *[(64, 2, 2)] * 2, (64, 1, 1))
    size = {"conv_layers": convs, "dim": 64, "num_layers": 2, "num_heads": 2, "ffn_dim": 128, "position_groups": 4}
    still = {"dropout": 0.0, "attention_dropout": 0.0, "layer_drop": 0.0}
    return sew_small(**{**size, **still, "position_kernel": 15, **changes})
