"""Encoders that were trained to tell what comes next: CPC, wav2vec, vq-wav2vec. Convolutions over the waveform, then a
context network that looks back only.

`CpcConfig` has a recurrent context: CPC (arXiv:1807.03748), and the variant of Rivière, Kharitonov and Kahn
(arXiv:2002.02848, arXiv:2011.11588) with a norm of each frame's channels and LSTMs. `Wav2VecConfig` has causal
convolutions: wav2vec (arXiv:1904.05862) and vq-wav2vec (arXiv:1910.05453), whose quantiser stands between `local` and
`context` and belongs to the objective.

The group norm of wav2vec takes its statistics over each item's own frames, so an item comes out the same in any batch; it
also sees the whole item, so those presets stream only with `norm="layer"`.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.core.types import Features
from sonorant.encoders.stack import BlockStream, run_blocks
from sonorant.nn.dropout import Dropout
from sonorant.nn.recurrent import Recurrent, RecurrentKind
from sonorant.nn.strided import ConvNorm, StridedConvs, build_activation, conv_norm
from sonorant.nn.transformer import Between

__all__ = [
    "Cpc", "CpcConfig", "Wav2VecConfig", "build", "cpc", "cpc_big", "cpc_small", "cpc_tiny", "vq_wav2vec", "wav2vec",
    "wav2vec_large", "wav2vec_tiny",
]  # fmt: skip

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class CpcConfig:
    """CPC; the defaults are those of arXiv:1807.03748, section 3.1."""

    sample_rate: int = 16000
    """Hz."""
    local_dim: int = 512
    """Channels of the convolutions."""
    kernels: tuple[int, ...] = (10, 8, 4, 4, 4)
    """Steps that each convolution sees."""
    strides: tuple[int, ...] = (5, 4, 2, 2, 2)
    """Steps between its outputs: 160 samples, 10 ms, in all."""
    paddings: tuple[int, ...] = ()
    """Zeros on either side of each convolution's input; none where empty."""
    norm: ConvNorm = "none"
    """Behind each convolution: none (the paper), layer (each frame's channels), group (the whole item)."""
    kind: RecurrentKind = "gru"
    """Cells of the context network: gru or lstm."""
    dim: int = 256
    """Width of the context network."""
    num_layers: int = 1
    """Its layers."""

    def __post_init__(self) -> None:
        for name in ("sample_rate", "local_dim", "dim", "num_layers"):
            at_least(name, getattr(self, name), 1)
        one_of("norm", self.norm, ("none", "layer", "group"))
        one_of("kind", self.kind, ("gru", "lstm"))


@dataclass(frozen=True, kw_only=True)
class Wav2VecConfig:
    """wav2vec; the defaults are the base model of arXiv:1904.05862, section 2.1."""

    sample_rate: int = 16000
    """Hz."""
    dim: int = 512
    """Channels of all convolutions."""
    kernels: tuple[int, ...] = (10, 8, 4, 4, 4)
    """Steps that each convolution of the encoder network sees."""
    strides: tuple[int, ...] = (5, 4, 2, 2, 2)
    """Steps between its outputs: 160 samples, 10 ms, in all."""
    context_kernels: tuple[int, ...] = (3,) * 9
    """Frames that each causal convolution of the context network sees."""
    norm: ConvNorm = "group"
    """Behind each convolution: group (the paper's, over the whole item), layer (each frame; can stream), none."""
    activation: str = "relu"
    """relu, or gelu (vq-wav2vec)."""
    log_compression: bool = True
    """log(1 + |z|) of what the encoder network gives (the authors' code)."""
    skip: bool = False
    """Each layer of the context network adds its input, and scales the sum (large model)."""
    residual_scale: float = 0.5
    """The scale is its square root (the authors' code)."""
    dropout: float = 0.0
    """In the context network."""

    def __post_init__(self) -> None:
        for name in ("sample_rate", "dim"):
            at_least(name, getattr(self, name), 1)
        if not self.context_kernels or min(self.context_kernels) < 1:
            raise ConfigError(f"context_kernels must hold one kernel a layer, each ≥ 1, got {self.context_kernels}")
        one_of("norm", self.norm, ("none", "layer", "group"))
        one_of("activation", self.activation, ("relu", "gelu"))
        within("residual_scale", self.residual_scale, 0, 1)
        within("dropout", self.dropout, 0, 0.99)


class _CausalConv(nn.Module):
    """A convolution over a frame and those before it, norm, activation; the first frame stands in for what was before."""

    def __init__(self, config: Wav2VecConfig, kernel: int) -> None:
        super().__init__()
        self.left = kernel - 1
        self.conv = nn.Conv1d(config.dim, config.dim, kernel)
        self.norm, self.whole = conv_norm(config.norm, config.dim), config.norm == "group"
        self.activation, self.dropout = build_activation(config.activation), Dropout(config.dropout)
        self.scale = math.sqrt(config.residual_scale) if config.skip else 0.0

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        first = values[:, :1].expand(-1, self.left, -1)
        return self._outputs(torch.cat([first, values], dim=1), values, lengths)

    def step(self, values: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One chunk after the frames that the convolution still needs."""
        if self.whole:
            raise ConfigError("norm='group' looks at a whole item and cannot stream; train with norm='layer'")
        joined = torch.cat([values[:, :1].expand(-1, self.left, -1) if state is None else state, values], dim=1)
        lengths = torch.full((len(values),), values.shape[1], device=values.device)
        return self._outputs(joined, values, lengths), joined[:, joined.shape[1] - self.left :]

    def _outputs(self, padded: Tensor, values: Tensor, lengths: Tensor) -> Tensor:
        outputs = self.dropout(self.conv(padded.transpose(1, 2)).transpose(1, 2))
        outputs = self.activation(outputs if self.norm is None else self.norm(outputs, lengths))
        return (outputs + values) * self.scale if self.scale else outputs


class Cpc(nn.Module):
    """Waveforms to frames every 10 ms, from the past alone.

    >>> Cpc(cpc_tiny())(torch.zeros(1, 16000), torch.tensor([16000])).values.shape
    torch.Size([1, 98, 32])
    """

    input = "waveform"

    def __init__(self, config: CpcConfig | Wav2VecConfig) -> None:
        super().__init__()
        self.config, self.dim = config, config.dim
        if isinstance(config, CpcConfig):
            self.local_dim, self.num_layers = config.local_dim, config.num_layers
            self.convs = StridedConvs(
                config.local_dim, config.kernels, config.strides, config.paddings, norm=config.norm
            )
            widths = [config.local_dim] + [config.dim] * (config.num_layers - 1)
            self.blocks = nn.ModuleList(
                Recurrent(config.kind, width, config.dim, bidirectional=False) for width in widths
            )
        else:
            self.local_dim, self.num_layers = config.dim, len(config.context_kernels)
            self.convs = StridedConvs(
                config.dim,
                config.kernels,
                config.strides,
                norm=config.norm,
                activation=config.activation,
                bias=config.norm == "none",
                log_compression=config.log_compression,
            )
            self.blocks = nn.ModuleList(_CausalConv(config, kernel) for kernel in config.context_kernels)

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out."""
        return self.convs.geometry.frame_rate(self.config.sample_rate)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees by convolution; a recurrent context sees all that was before."""
        frames = sum(block.left for block in self.blocks if isinstance(block, _CausalConv))
        return self.convs.geometry.receptive_field + frames * self.convs.geometry.stride

    def output_lengths(self, lengths: Count) -> Count:
        """Frames that come out for `lengths` samples; exact."""
        return self.convs.output_lengths(lengths)

    def local(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> Features:
        """What the convolutions over the waveform make: z of the papers."""
        frames, lengths = self.convs(values, lengths)
        return Features(frames, lengths, self.frame_rate)

    def embed(self, local: Features) -> Features:
        """The same."""
        return local

    def context(
        self, embedded: Features, layers: bool = False, between: Between | None = None
    ) -> Features | list[Features]:
        """What the context network makes of it: c of the papers; see `run_blocks`."""
        return run_blocks(embedded, self.blocks, layers, between)

    def forward(
        self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch; `layers=True` returns z and what comes out of each layer of the context network."""
        return self.context(self.embed(self.local(values, lengths)), layers)

    def stream(self, batch: int = 1) -> BlockStream:
        """A stream over `batch` signals that grow together.

        Raises:
            ConfigError: the norm looks at whole items.
        """
        return BlockStream(self, batch, self.convs.stream(batch))


# --- published sizes --------------------------------------------------------------------------------------------------


def cpc(**changes: Any) -> CpcConfig:
    """The network of van den Oord, Li and Vinyals."""
    return replace(CpcConfig(), **changes)


def cpc_small(**changes: Any) -> CpcConfig:
    """256 channels with a norm of each frame, two LSTMs (arXiv:2011.11588, CPC-small)."""
    sizes = {"local_dim": 256, "paddings": (3, 2, 1, 1, 1), "norm": "layer", "kind": "lstm", "num_layers": 2}
    return cpc(**{**sizes, **changes})


def cpc_big(**changes: Any) -> CpcConfig:
    """512 channels, four LSTMs of 512 (arXiv:2011.11588, CPC-big)."""
    return cpc_small(**{"local_dim": 512, "dim": 512, "num_layers": 4, **changes})


def cpc_tiny(**changes: Any) -> CpcConfig:
    """For tests and demonstrations; no published size."""
    return cpc(**{"local_dim": 32, "dim": 32, "norm": "layer", **changes})


def wav2vec(**changes: Any) -> Wav2VecConfig:
    """The base model: nine layers of context, 210 ms."""
    return replace(Wav2VecConfig(), **changes)


def wav2vec_large(**changes: Any) -> Wav2VecConfig:
    """Two more layers in the encoder network, twelve of growing kernels with skips in the other: 810 ms (section 2.1)."""
    sizes = {"kernels": (10, 8, 4, 4, 4, 1, 1), "strides": (5, 4, 2, 2, 2, 1, 1), "skip": True}
    return wav2vec(**{**sizes, "context_kernels": tuple(range(2, 14)), **changes})


def vq_wav2vec(**changes: Any) -> Wav2VecConfig:
    """Eight layers in the encoder network and GELU (arXiv:1910.05453, section 5.1)."""
    sizes = {"kernels": (10, 8, 4, 4, 4, 1, 1, 1), "strides": (5, 4, 2, 2, 2, 1, 1, 1), "activation": "gelu"}
    return wav2vec_large(**{**sizes, **changes})


def wav2vec_tiny(**changes: Any) -> Wav2VecConfig:
    """Two layers of context; for tests and demonstrations; no published size."""
    return wav2vec(**{"dim": 32, "context_kernels": (2, 3), **changes})


def build(config: CpcConfig | Wav2VecConfig) -> Cpc:
    """The module of a configuration, with random weights."""
    return Cpc(config)
