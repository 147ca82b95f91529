"""Spectral features in the form of an encoder without layers: what the first clusters are made of, and the baselines.

Whatever can be clustered, labelled or probed is a module from waveforms to frames with `num_layers`; with this one, log mel
energies and cepstra are such a module too, at the frame rate of the encoder that they are compared with.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.audio.features.cmvn import Cmvn
from sonorant.audio.features.deltas import add_deltas
from sonorant.audio.features.fbank import Fbank
from sonorant.audio.features.mfcc import Mfcc
from sonorant.core.config import at_least, one_of
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features

__all__ = ["FrontConfig", "SpectralFront", "log_mel_front", "mfcc_front", "stack_frames"]

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class FrontConfig:
    """What the frames hold; the defaults are the 39 cepstra of HuBERT's first iteration (arXiv:2106.07447, section III-B)."""

    kind: Literal["fbank", "mfcc"] = "mfcc"
    """Log mel energies, or their cepstra."""
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

    def __post_init__(self) -> None:
        one_of("kind", self.kind, ("fbank", "mfcc"))
        for name, low in (("dim", 1), ("deltas", 0), ("stack", 1), ("every", 1)):
            at_least(name, getattr(self, name), low)


def mfcc_front(frame_rate: float = 100.0, **changes: Any) -> FrontConfig:
    """39 cepstra at a rate that divides 100 frames a second: the frame in the middle of each stretch."""
    return FrontConfig(**{"every": round(100 / frame_rate), **changes})


def log_mel_front(frame_rate: float = 100.0, **changes: Any) -> FrontConfig:
    """40 log mel energies a frame, stacked to a rate that divides 100 frames a second."""
    return FrontConfig(**{"kind": "fbank", "dim": 40, "deltas": 0, "stack": round(100 / frame_rate), **changes})


def stack_frames(features: Features, factor: int) -> Features:
    """Each `factor` neighbouring frames side by side; what is left at the end is dropped.

    >>> stack_frames(Features(torch.randn(1, 7, 3), torch.tensor([7]), 100.0), 2).values.shape
    torch.Size([1, 3, 6])
    """
    values, lengths = features.values, features.lengths // factor
    whole = values.shape[1] // factor
    stacked = values[:, : whole * factor].reshape(len(values), whole, factor * values.shape[2])
    return Features(zero_padding(stacked, lengths), lengths, features.frame_rate / factor)


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
        rate, hop = config.sample_rate, config.hop
        self.front_end: Any = (
            Fbank(rate, num_mels=config.dim, hop=hop)
            if config.kind == "fbank"
            else Mfcc(rate, num_ceps=config.dim, num_mels=max(23, config.dim), hop=hop)
        )
        self.dim = self.local_dim = config.dim * (1 + config.deltas) * config.stack
        self.normalise = Cmvn(self.dim)

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
        if self.config.deltas:
            features = add_deltas(features, self.config.deltas)
        every = self.config.every
        if every > 1:
            counts = features.lengths // every
            kept = features.values[:, (every - 1) // 2 :: every][:, : int(counts.max())]
            features = Features(zero_padding(kept, counts), counts, features.frame_rate / every)
        return stack_frames(features, self.config.stack) if self.config.stack > 1 else features

    def embed(self, local: Features) -> Features:
        """Normalised by the corpus's statistics, where there are some."""
        return self.normalise(local) if float(self.normalise.count) else local

    def context(self, embedded: Features, layers: bool = False) -> Features | list[Features]:
        """There are no blocks: what comes in."""
        return [embedded] if layers else embedded

    def forward(
        self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Frames of a padded batch; with `layers` a list of that one."""
        # Log energies do not survive bfloat16.
        with torch.autocast(values.device.type, enabled=False):
            return self.context(self.embed(self.local(values, lengths)), layers)
