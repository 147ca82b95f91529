"""PASE's workers: small networks that make known things of an encoder's frames (arXiv:2001.09239, section 2.3).

Regressors say what a spectral front makes of the clean audio, `WaveformWorker` the audio itself, `PairWorker` whether two
frames or two stretches are of one utterance. Each is called with the encoder's frames and returns one number an item: the
mean distance at a frame times the number of frames, so that sums over items are sums of the batch.
"""

from collections.abc import Callable, Sequence
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.audio.features.cmvn import Cmvn
from sonorant.audio.features.deltas import add_deltas
from sonorant.audio.features.fbank import Fbank
from sonorant.audio.features.gammatone import Gammatone
from sonorant.audio.features.log_power import LogPower
from sonorant.audio.features.mfcc import Mfcc
from sonorant.audio.features.prosody import Prosody
from sonorant.core.errors import ConfigError, unknown_name
from sonorant.core.lengths import valid_mask, zero_padding
from sonorant.core.seed import integers
from sonorant.core.types import Features

__all__ = ["TARGETS", "PairWorker", "Regressor", "WaveformWorker", "perceptron"]

TARGETS: dict[str, Callable[[int], nn.Module]] = {
    "lps": lambda rate: LogPower(rate, n_fft=512),
    "lps_long": lambda rate: LogPower(rate, n_fft=2048, frame_length=0.064),
    "fbank": lambda rate: Fbank(rate, num_mels=40, snip_edges=False),
    "fbank_long": lambda rate: Fbank(rate, num_mels=40, frame_length=0.064, snip_edges=False),
    "gammatone": lambda rate: Gammatone(rate, num_bands=40, snip_edges=False),
    "gammatone_long": lambda rate: Gammatone(rate, num_bands=40, frame_length=0.128, snip_edges=False),
    "mfcc": lambda rate: Mfcc(rate, num_ceps=13, num_mels=40, snip_edges=False),
    "mfcc_long": lambda rate: Mfcc(rate, num_ceps=20, num_mels=40, frame_length=0.128, snip_edges=False),
    "prosody": lambda rate: Prosody(rate),
}
"""Name → front at 100 frames a second, from the sample rate in Hz; long windows as in the authors' configuration."""


def perceptron(dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """One hidden layer with a rectifier whose slope below zero is learned."""
    return nn.Sequential(nn.Linear(dim, hidden_dim), nn.PReLU(), nn.Linear(hidden_dim, output_dim))


class Regressor(nn.Module):
    """Says the normalised features around each frame; mean squared error.

    Args:
        name: of the features, in `TARGETS`.
        dim: width of the encoder's frames.
        sample_rate: Hz.
        hidden_dim: width of the hidden layer.
        deltas: orders of time derivatives beside the features.
        reach: frames on either side that are said as well.

    Call `update` with training audio before use; the statistics are buffers.
    """

    def __init__(
        self, name: str, dim: int, sample_rate: int, hidden_dim: int = 256, deltas: int = 2, reach: int = 3
    ) -> None:
        super().__init__()
        if name not in TARGETS:
            raise ConfigError(unknown_name("worker", name, TARGETS))
        self.front = TARGETS[name](sample_rate)
        self.deltas, self.reach = deltas, reach
        self.target_dim = int(self.front.dim) * (1 + deltas)  # type: ignore[arg-type]
        self.normalise = Cmvn(self.target_dim)
        self.network = perceptron(dim, hidden_dim, (2 * reach + 1) * self.target_dim)

    def features(self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> Features:
        """What is to be said, before normalisation."""
        with torch.no_grad(), torch.autocast(waveform.device.type, enabled=False):
            made: Features = self.front(waveform.float(), lengths)
            return add_deltas(made, self.deltas) if self.deltas else made

    def update(self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> None:
        """Takes audio into the statistics."""
        self.normalise.update(self.features(waveform, lengths))

    def forward(
        self, frames: Features, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        target = self.normalise(self.features(waveform, lengths))
        num_frames = frames.values.shape[1]
        # The encoder has a frame for each hop that has begun, a front one more or less: what both have is compared.
        counts = torch.minimum(frames.lengths, target.lengths)
        said = self.network(frames.values).float().unflatten(2, (2 * self.reach + 1, self.target_dim))
        known = _windows(target.values, num_frames, self.reach)  # (batch, frame, place, dim)
        inside = _windows(valid_mask(target.lengths, target.values.shape[1])[..., None], num_frames, self.reach)
        inside = inside & valid_mask(counts, num_frames)[..., None, None]
        errors = torch.where(inside, (said - known).square(), 0).mean(3).sum(2) / inside.sum((2, 3)).clamp(min=1)
        return _as_sums(errors.sum(1), counts, frames.lengths)


def _windows(values: Tensor, num_frames: int, reach: int) -> Tensor:
    """`num_frames` windows of the frames around each, `(batch, frame, 2 · reach + 1, dim)`; zeros beyond the ends."""
    behind = max(0, num_frames + reach - values.shape[1])
    padded = nn.functional.pad(values, (0, 0, reach, behind))[:, : num_frames + 2 * reach]
    return padded.unfold(1, 2 * reach + 1, 1).transpose(2, 3)


def _as_sums(totals: Tensor, counts: Tensor, lengths: Tensor) -> Tensor:
    """Sums over `counts` frames, as sums over `lengths`."""
    return totals / counts.clamp(min=1) * lengths


class WaveformWorker(nn.Module):
    """Says the samples of each frame through convolutions that lengthen; mean absolute error.

    Args:
        dim: width of the encoder's frames.
        channels: of the convolutions.
        strides: samples that one step becomes in each; their product is the encoder's hop.
        kernel_size: steps that each reaches, of the parity of every stride.
        hidden_dim: width of the last hidden layer.
    """

    def __init__(
        self,
        dim: int,
        channels: Sequence[int] = (512, 256, 128),
        strides: Sequence[int] = (4, 4, 10),
        kernel_size: int = 30,
        hidden_dim: int = 64,
    ) -> None:
        super().__init__()
        if len(channels) != len(strides) or any(kernel_size < s or (kernel_size - s) % 2 for s in strides):
            raise ConfigError(
                "the waveform worker needs as many channels as strides, and a kernel_size of the strides' parity that is no "
                f"smaller, got channels={tuple(channels)}, strides={tuple(strides)} and kernel_size={kernel_size}"
            )
        widths = [dim, *channels]
        self.strides = tuple(strides)
        self.convs = nn.ModuleList(
            # Padded so that n steps become exactly n · stride.
            nn.ConvTranspose1d(widths[i], widths[i + 1], kernel_size, stride, (kernel_size - stride) // 2)
            for i, stride in enumerate(strides)
        )
        self.activations = nn.ModuleList(nn.PReLU(width) for width in channels)
        self.network = perceptron(widths[-1], hidden_dim, 1)

    @property
    def hop(self) -> int:
        """Samples a frame becomes."""
        return prod(self.strides)

    def said(self, frames: Features) -> Float[Tensor, "batch time"]:
        """The samples, `hop` for each frame."""
        values, lengths = zero_padding(frames.values, frames.lengths).transpose(1, 2), frames.lengths
        for conv, activation, stride in zip(self.convs, self.activations, self.strides, strict=True):
            lengths = lengths * stride
            values = activation(conv(values))
            # What biases leave behind an item's end would reach back into it through the next layer.
            values = values * valid_mask(lengths, values.shape[2])[:, None]
        return self.network(values.transpose(1, 2))[..., 0]

    def forward(
        self, frames: Features, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        said = self.said(frames).float()
        counts = torch.minimum(lengths, frames.lengths * self.hop)
        wanted = nn.functional.pad(waveform, (0, max(0, said.shape[1] - waveform.shape[1])))[:, : said.shape[1]]
        errors = torch.where(valid_mask(counts, said.shape[1]), (said - wanted).abs(), 0).sum(1)
        return _as_sums(errors, counts, frames.lengths)


class PairWorker(nn.Module):
    """Tells pairs from one utterance from pairs of two; binary cross-entropy.

    Args:
        dim: width of the encoder's frames.
        stretch: frames that are averaged on each side: 1 is LIM, a second GIM; an item that is shorter is taken whole.
        num_pairs: pairs of each kind that are drawn for an item.
        hidden_dim: width of the hidden layer.
    """

    def __init__(self, dim: int, stretch: int = 1, num_pairs: int = 16, hidden_dim: int = 256) -> None:
        super().__init__()
        self.stretch, self.num_pairs = stretch, num_pairs
        self.network = perceptron(2 * dim, hidden_dim, 1)

    def forward(
        self, frames: Features, partner: Int[Tensor, " batch"], seeds: Int[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """`partner` is the place in the batch of another item; one that is its own partner counts nothing."""
        told = self.logits(frames, partner, seeds)
        # −log σ(s) of the pairs from one utterance, −log(1 − σ(s)) of the others.
        errors = nn.functional.softplus(torch.stack([-told[0], told[1]])).mean((0, 2))
        alone = partner == torch.arange(len(partner), device=partner.device)
        return torch.where(alone | (frames.lengths[partner] == 0), 0, errors * frames.lengths)

    def logits(
        self, frames: Features, partner: Int[Tensor, " batch"], seeds: Int[Tensor, " batch"]
    ) -> Float[Tensor, "2 batch pair"]:
        """Of pairs within each item, and of pairs with its partner."""
        name = f"pairs/{self.stretch}"
        other = Features(frames.values[partner], frames.lengths[partner], frames.frame_rate)
        anchor = self._drawn(frames, seeds, f"{name}/anchor")
        same = self._drawn(frames, seeds, f"{name}/same")
        different = self._drawn(other, seeds, f"{name}/other")
        pairs = torch.stack([torch.cat([anchor, side], dim=2) for side in (same, different)])
        return self.network(pairs)[..., 0].float()

    def _drawn(self, frames: Features, seeds: Tensor, name: str) -> Float[Tensor, "batch pair dim"]:
        """Means over stretches from places that are drawn from each item's seed."""
        size = frames.lengths.clamp(1, self.stretch)[:, None]
        start = integers(seeds, name, self.num_pairs, 0, (frames.lengths - size[:, 0]).clamp(min=0) + 1)
        values = zero_padding(frames.values, frames.lengths)
        wide = (-1, -1, values.shape[2])
        if self.stretch == 1:
            return values.gather(1, start[..., None].expand(wide))
        # Differences of running sums, which are long: in double precision.
        sums = nn.functional.pad(values.double().cumsum(1), (0, 0, 1, 0))
        ends = torch.minimum(start + size, frames.lengths.clamp(min=1)[:, None])
        total = sums.gather(1, ends[..., None].expand(wide)) - sums.gather(1, start[..., None].expand(wide))
        return (total / size[..., None]).to(values.dtype)
