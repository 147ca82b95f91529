"""Spectral features as an encoder without layers, and any encoder of features on top of them.

Whatever can be clustered, labelled or probed is a module from waveforms to frames with `num_layers`. With `SpectralFront` log
mel energies and cepstra are such a module too, at the frame rate of the encoder that they are compared with: they make the
first clusters and are the baselines. `OnSpectrum` makes one module from waveforms of a front and an encoder of features.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.audio.features.cmvn import Cmvn, cmvn
from sonorant.audio.features.decibel import DecibelMel
from sonorant.audio.features.deltas import add_deltas
from sonorant.audio.features.fbank import Fbank
from sonorant.audio.features.mel import WhisperMel
from sonorant.audio.features.mfcc import Mfcc
from sonorant.audio.features.nemo import NemoMel
from sonorant.core.config import at_least, one_of
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features
from sonorant.encoders.checkpoint import describe_config, described_module
from sonorant.nn.convolution import stack_frames

__all__ = [
    "FrontConfig", "OnSpectrum", "OnSpectrumConfig", "SpectralFront", "ast_front", "beats_front", "build", "dasheng_front",
    "log_mel_front", "mfcc_front", "nemo_front", "on_spectrum", "seamless_front", "whisper_front",
]  # fmt: skip

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class FrontConfig:
    """What the frames hold; the defaults are the 39 cepstra of HuBERT's first iteration (arXiv:2106.07447, section III-B)."""

    kind: Literal["fbank", "mfcc", "whisper", "decibel", "nemo"] = "mfcc"
    """fbank: Kaldi's log mel energies; mfcc: their cepstra; whisper: Whisper's log mel; decibel: torchaudio's; nemo: NeMo's,
    each item's bands normalised."""
    sample_rate: int = 16000
    """Hz."""
    dim: int = 13
    """Mel bands of fbank, coefficients of MFCC."""
    deltas: int = 2
    """Orders of derivatives behind them."""
    hop: float = 0.01
    """Seconds between frames, before they are stacked."""
    stack: int = 1
    """Neighbouring frames that are put side by side, once each; divides the frame rate."""
    every: int = 1
    """One frame of so many is kept, the middle one; the other way to a lower frame rate."""
    window: str = "povey"
    """Window of fbank."""
    scale: float = 1.0
    """Factor on the waveform; fbank of models that count in 16-bit integers: 32768."""
    empty_bands: bool = False
    """Let bands of fbank be too narrow for the transform, as models of sounds do with 128 of them."""
    mean: float = 0.0
    """Taken from every value, whatever the corpus."""
    std: float = 1.0
    """What every value is divided by then."""
    by_item: bool = False
    """Bring each band of an item to mean 0 and (unbiased) variance 1, before frames are stacked."""

    def __post_init__(self) -> None:
        one_of("kind", self.kind, ("fbank", "mfcc", "whisper", "decibel", "nemo"))
        if self.kind in ("whisper", "decibel", "nemo") and (self.sample_rate != 16000 or self.hop != 0.01):
            raise ConfigError(
                f"kind='{self.kind}' is defined for 16 kHz and a hop of 0.01 s only, got {self.sample_rate} and {self.hop}"
            )
        if self.std <= 0 or self.scale <= 0:
            raise ConfigError(f"std and scale must be above 0, got {self.std} and {self.scale}")
        for name, low in (("dim", 1), ("deltas", 0), ("stack", 1), ("every", 1)):
            at_least(name, getattr(self, name), low)


def mfcc_front(frame_rate: float = 100.0, **changes: Any) -> FrontConfig:
    """39 cepstra at a rate that divides 100 frames a second: the frame in the middle of each stretch."""
    return FrontConfig(**{"every": round(100 / frame_rate), **changes})


def log_mel_front(frame_rate: float = 100.0, **changes: Any) -> FrontConfig:
    """40 log mel energies a frame, stacked to a rate that divides 100 frames a second."""
    return FrontConfig(**{"kind": "fbank", "dim": 40, "deltas": 0, "stack": round(100 / frame_rate), **changes})


def whisper_front(num_mels: int = 80) -> FrontConfig:
    """Whisper's input; 128 bands from large-v3 on."""
    return FrontConfig(kind="whisper", dim=num_mels, deltas=0)


def ast_front() -> FrontConfig:
    """What AST, SSAST and Audio-MAE take, by the statistics of AudioSet (arXiv:2104.01778, the authors' code)."""
    return log_mel_front(dim=128, window="hann", empty_bands=True, mean=-4.2677393, std=2 * 4.5689974)


def beats_front() -> FrontConfig:
    """What BEATs takes (arXiv:2212.09058, the authors' code)."""
    return log_mel_front(dim=128, scale=32768.0, empty_bands=True, mean=15.41663, std=2 * 6.55582)


def dasheng_front() -> FrontConfig:
    """What Dasheng takes (arXiv:2406.06992)."""
    return FrontConfig(kind="decibel", dim=64, deltas=0)


def nemo_front(num_mels: int = 80) -> FrontConfig:
    """What NVIDIA's Fast Conformers take: Parakeet, Canary, NEST."""
    return FrontConfig(kind="nemo", dim=num_mels, deltas=0)


def seamless_front(num_mels: int = 80) -> FrontConfig:
    """What w2v-BERT 2.0 takes: two frames side by side, each band normalised over the item (arXiv:2312.05187)."""
    return log_mel_front(50, dim=num_mels, scale=32768.0, by_item=True)


def _front_end(config: FrontConfig) -> nn.Module:
    if config.kind == "whisper":
        return WhisperMel(config.dim)
    if config.kind == "decibel":
        return DecibelMel(config.dim)
    if config.kind == "nemo":
        return NemoMel(config.dim)
    rate, hop = config.sample_rate, config.hop
    if config.kind == "mfcc":
        return Mfcc(rate, num_ceps=config.dim, num_mels=max(23, config.dim), hop=hop)
    options = {"window": config.window, "scale": config.scale, "empty_bands": config.empty_bands}
    return Fbank(rate, num_mels=config.dim, hop=hop, **options)  # type: ignore[arg-type]


class SpectralFront(nn.Module):
    """Waveforms to spectral frames, normalised once `normalise` holds statistics.

    >>> front = SpectralFront(mfcc_front(frame_rate=50))
    >>> front(torch.randn(1, 16000), torch.tensor([16000])).values.shape, front.frame_rate
    (torch.Size([1, 49, 39]), 50.0)
    """

    input: Literal["waveform"] = "waveform"
    num_layers = 0

    def __init__(self, config: FrontConfig) -> None:
        super().__init__()
        self.config = config
        self.front_end: Any = _front_end(config)
        self.dim = self.local_dim = config.dim * (1 + config.deltas) * config.stack
        self.normalise = Cmvn(self.dim)

    def _apply(self, fn: Any, recurse: bool = True) -> "SpectralFront":
        """Moves between devices; windows, mel bands and statistics keep their precision, whatever the rest is cast to."""
        exact = [
            (module, name, tensor) for module in self.modules() for name, tensor in module.named_buffers(recurse=False)
        ]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for module, name, tensor in exact:
            moved = getattr(module, name)
            if moved.dtype.itemsize < tensor.dtype.itemsize and moved.device.type != "meta":
                setattr(module, name, tensor.to(moved.device))
        return self

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return float(self.front_end.frame_rate) / (self.config.stack * self.config.every)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees."""
        geometry = self.front_end.geometry
        frames = self.config.stack * self.config.every + 4 * self.config.deltas
        return int(geometry.receptive_field + (frames - 1) * geometry.stride)

    def output_lengths(self, lengths: Count) -> Count:
        """Frames for samples."""
        return self.front_end.geometry.output_lengths(lengths) // (self.config.every * self.config.stack)

    def local(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> Features:
        """The frames as they are, before normalisation."""
        features = self.front_end(values, lengths)
        if (self.config.mean, self.config.std) != (0, 1):
            normed = (features.values - self.config.mean) / self.config.std
            features = Features(zero_padding(normed, features.lengths), features.lengths, features.frame_rate)
        if self.config.by_item:
            count = features.lengths.clamp(min=1)[:, None, None]
            normed = cmvn(features).values * ((count - 1) / count).sqrt().to(features.values)
            features = Features(normed, features.lengths, features.frame_rate)
        if self.config.deltas:
            features = add_deltas(features, self.config.deltas)
        every = self.config.every
        if every > 1:
            counts = features.lengths // every
            kept = features.values[:, (every - 1) // 2 :: every][:, : int(counts.max())]
            features = Features(zero_padding(kept, counts), counts, features.frame_rate / every)
        if self.config.stack == 1:
            return features
        return Features(*stack_frames(features.values, features.lengths, self.config.stack), self.frame_rate)

    def embed(self, local: Features) -> Features:
        """Normalised by the corpus's statistics, where there are some."""
        # Without a branch on the count, so that it can be exported.
        sums, empty = self.normalise, self.normalise.count == 0
        mean = sums.mean.masked_fill(empty, 0).to(local.values)
        std = sums.std.masked_fill(empty, 1).to(local.values)
        return Features(zero_padding((local.values - mean) / std, local.lengths), local.lengths, local.frame_rate)

    def context(self, embedded: Features, layers: bool = False) -> Features | list[Features]:
        """There are no blocks: what comes in."""
        return [embedded] if layers else embedded

    def forward(
        self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Frames of a padded batch; with `layers` a list of that one."""
        # Log energies do not survive bfloat16.
        with torch.autocast(values.device.type, enabled=False):
            return self.context(self.embed(self.local(values.float(), lengths)), layers)


@dataclass(frozen=True, kw_only=True)
class OnSpectrumConfig:
    """A front and the encoder that takes its frames."""

    front: FrontConfig = field(default_factory=lambda: log_mel_front(100))
    """What the encoder sees."""
    encoder: dict[str, Any] = field(default_factory=dict)
    """The encoder of features, as `describe_config` tells it."""


def on_spectrum(encoder: Any, base: FrontConfig | None = None, **front: Any) -> OnSpectrumConfig:
    """The configuration of an encoder of features on 40 log mel energies at 100 frames a second, or on another front.

    Args:
        encoder: configuration of a family; its `input_dim` and `input_frame_rate` are fitted to the front.
        base: the front; 40 log mel energies where None.
        front: fields of `FrontConfig` that differ.

    >>> from sonorant.encoders.conformer import conformer_tiny
    >>> encoder = build(on_spectrum(conformer_tiny(), dim=23))
    >>> encoder(torch.randn(1, 16000), torch.tensor([16000])).values.shape
    torch.Size([1, 23, 64])
    """
    config = log_mel_front(**front) if base is None else replace(base, **front)
    described = describe_config(encoder)
    probe = SpectralFront(config)
    fitted = {"input_dim": probe.dim, "input_frame_rate": probe.frame_rate}
    options = {
        **described["options"],
        **{name: value for name, value in fitted.items() if name in described["options"]},
    }
    return OnSpectrumConfig(front=config, encoder={**described, "options": options})


class OnSpectrum(nn.Module):
    """Waveforms → spectral frames → normalisation → an encoder of features: one encoder from waveforms."""

    input: Literal["waveform"] = "waveform"

    def __init__(self, config: OnSpectrumConfig) -> None:
        super().__init__()
        self.config = config
        self.front = SpectralFront(config.front)
        self.encoder: Any = described_module(config.encoder)
        self.dim, self.local_dim = self.encoder.dim, self.encoder.local_dim
        self.num_layers = self.encoder.num_layers
        self.embed_dim: int = vars(self.encoder).get("embed_dim", self.dim)

    @property
    def blocks(self) -> nn.ModuleList:
        """The encoder's, one a layer."""
        return self.encoder.blocks  # type: ignore[no-any-return]

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out."""
        return float(self.encoder.frame_rate)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees by convolution alone."""
        stride = round(self.config.front.sample_rate / self.front.frame_rate)
        return int(self.front.receptive_field + (self.encoder.receptive_field - 1) * stride)

    def output_lengths(self, lengths: Count) -> Count:
        """Frames for samples; exact."""
        return self.encoder.output_lengths(self.front.output_lengths(lengths))  # type: ignore[no-any-return]

    def local(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> Features:
        """Spectral frames and the encoder's own front end."""
        frames = self.front(values, lengths)
        assert isinstance(frames, Features)
        dtype = next(self.encoder.parameters()).dtype
        return self.encoder.local(frames.values.to(dtype), frames.lengths)  # type: ignore[no-any-return]

    def embed(self, local: Features) -> Features:
        """What the blocks take."""
        return self.encoder.embed(local)  # type: ignore[no-any-return]

    def context(self, embedded: Features, layers: bool = False, between: Any = None) -> Any:
        """The blocks; `between` where the encoder has it."""
        options = {} if between is None else {"between": between}
        return self.encoder.context(embedded, layers, **options)

    def forward(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"], layers: bool = False) -> Any:
        """Frames of a padded batch, or those of every layer."""
        return self.context(self.embed(self.local(values, lengths)), layers)

    def attention_maps(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> list[Tensor]:
        """Of each layer `(batch, head, query, key)`, where the encoder has attention."""
        frames = self.front(values, lengths)
        assert isinstance(frames, Features)
        return self.encoder.attention_maps(frames.values, frames.lengths)  # type: ignore[no-any-return]


def build(config: OnSpectrumConfig | FrontConfig) -> OnSpectrum | SpectralFront:
    """The module of a configuration."""
    return SpectralFront(config) if isinstance(config, FrontConfig) else OnSpectrum(config)
