"""PASE+: many small tasks at once on frames of distorted audio, all of them about the clean one (arXiv:2001.09239).

`Pase` sums the losses of its workers (`objectives.workers`); `pase_distortions` is the chain that the encoder hears through.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.audio.augment.catalogue import build_augmentation
from sonorant.audio.augment.chain import Chain
from sonorant.audio.augment.clips import Clips, partners
from sonorant.audio.augment.draws import Draws
from sonorant.core.config import at_least
from sonorant.core.errors import ConfigError, DataError, unknown_name
from sonorant.core.types import Batch, Features, Loss
from sonorant.objectives.collapse import frame_statistics
from sonorant.objectives.views import heard, seeds_of, takes_waveform
from sonorant.objectives.workers import TARGETS, PairWorker, Regressor, WaveformWorker

__all__ = ["Pase", "PaseObjectiveConfig", "build", "pase_distortions", "pase_objective", "pase_toy_objective"]


@dataclass(frozen=True, kw_only=True)
class PaseObjectiveConfig:
    """The workers; the defaults are PASE+'s (section 2.3 and the authors' configuration)."""

    sample_rate: int = 16000
    """Hz."""
    regressors: tuple[str, ...] = tuple(TARGETS)
    """Fronts whose features are said, of `objectives.workers.TARGETS`."""
    waveform: bool = True
    """Whether the samples are said."""
    channels: tuple[int, ...] = (512, 256, 128)
    """Of the convolutions that say them."""
    strides: tuple[int, ...] = (4, 4, 10)
    """Samples that one step becomes in each; the encoder's hop in all."""
    kernel_size: int = 30
    """Steps that each reaches."""
    stretches: tuple[int, ...] = (1, 100)
    """Frames on each side of the pairs that are told apart: LIM's one frame, GIM's second."""
    num_pairs: int = 16
    """Pairs of each kind that are drawn for an item."""
    hidden_dim: int = 256
    """Width of the workers' hidden layer."""
    deltas: int = 2
    """Orders of derivatives that are said with the features."""
    reach: int = 3
    """Frames on either side that are said as well."""

    def __post_init__(self) -> None:
        for name in ("sample_rate", "num_pairs", "hidden_dim", "kernel_size"):
            at_least(name, getattr(self, name), 1)
        for name in ("deltas", "reach"):
            at_least(name, getattr(self, name), 0)
        for name in self.regressors:
            if name not in TARGETS:
                raise ConfigError(unknown_name("worker", name, TARGETS))
        if not (self.regressors or self.waveform or self.stretches):
            raise ConfigError("there must be at least one worker: regressors, waveform=True, or stretches")
        if any(stretch < 1 for stretch in self.stretches):
            raise ConfigError(f"stretches are counted in frames, each at least 1, got {self.stretches}")


class Pase(nn.Module):
    """See the module's docstring.

    Args:
        encoder: of waveforms, 100 frames a second.
        config: the workers.
        distort: changes the audio that the encoder hears, from the batch's seeds; lengths must stay. The workers' targets are
            of the clean audio.
    """

    def __init__(
        self, encoder: nn.Module, config: PaseObjectiveConfig, distort: Callable[[Batch], Batch] | None = None
    ) -> None:
        super().__init__()
        self.encoder: Any = takes_waveform(encoder, "Pase")
        self.config, self.distort = config, distort
        hop = config.sample_rate / self.encoder.frame_rate
        if abs(self.encoder.frame_rate - 100) > 1e-6:
            raise ConfigError(f"the workers speak at 100 frames a second, the encoder at {self.encoder.frame_rate:g}")
        dim, hidden = self.encoder.dim, config.hidden_dim
        self.regressors = nn.ModuleDict(
            {
                name: Regressor(name, dim, config.sample_rate, hidden, config.deltas, config.reach)
                for name in config.regressors
            }
        )
        self.waveform = None
        if config.waveform:
            self.waveform = WaveformWorker(dim, config.channels, config.strides, config.kernel_size)
            if self.waveform.hop != hop:
                raise ConfigError(f"strides must make the encoder's hop of {hop:g} samples, got {config.strides}")
        self.pairs = nn.ModuleList(PairWorker(dim, size, config.num_pairs, hidden) for size in config.stretches)

    @torch.no_grad()
    def fit_targets(self, batches: Iterable[Batch], max_seconds: float = 600.0) -> None:
        """Gathers mean and variance of the workers' features from up to `max_seconds` of audio.

        Raises:
            DataError: there is none.
        """
        seconds = 0.0
        for batch in batches:
            for worker in self.regressors.values():
                worker.update(batch.waveform, batch.lengths)  # type: ignore[operator]
            seconds += batch.seconds
            if seconds >= max_seconds:
                break
        if seconds == 0:
            raise DataError("no audio to gather the workers' statistics from: the training split is empty")

    def target_statistics(self) -> dict[str, Tensor]:
        """Mean and variance of the workers' features, as `load_target_statistics` takes them."""
        return {name: value for name, value in self.state_dict().items() if ".normalise." in name}

    def load_target_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Takes those of an objective with the same workers, or more.

        Raises:
            DataError: there are none for a worker.
        """
        own = self.target_statistics()
        missing = sorted(own.keys() - statistics.keys())
        if missing:
            raise DataError(
                f"there are no statistics for the workers' features: {missing[:3]}; gather them for all workers"
            )
        self.load_state_dict({**self.state_dict(), **{name: statistics[name] for name in own}})

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """{"model": the sum of all workers' distances at a frame, over the frames}."""
        frames = self._frames(batch)
        sums = self._sums(batch, frames)
        total = torch.stack(list(sums.values())).sum()
        return {"model": Loss(total, frames.lengths.sum(), {name: value.detach() for name, value in sums.items()})}

    def _frames(self, batch: Batch) -> Features:
        distorted = heard(batch, self.distort, "Pase")
        return self.encoder(distorted.waveform, distorted.lengths)  # type: ignore[no-any-return]

    def _sums(self, batch: Batch, frames: Features) -> dict[str, Float[Tensor, ""]]:
        sums = {name: worker(frames, batch.waveform, batch.lengths).sum() for name, worker in self.regressors.items()}
        if self.waveform is not None:
            sums["waveform"] = self.waveform(frames, batch.waveform, batch.lengths).sum()
        if len(self.pairs):
            seeds = seeds_of(batch, "Pase")
            partner = _partner(seeds)
            for pairs, size in zip(self.pairs, self.config.stretches, strict=True):
                sums[f"pairs_{size}"] = pairs(frames, partner, seeds).sum()
        return sums

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, float]:
        """Spread of frames, each worker's mean distance, and how often pairs are told apart."""
        frames = self._frames(batch)
        count = float(frames.lengths.sum().clamp(min=1))
        told = {name: float(value) / count for name, value in self._sums(batch, frames).items()}
        if len(batch) > 1:
            seeds = seeds_of(batch, "Pase")
            for pairs, size in zip(self.pairs, self.config.stretches, strict=True):
                logits = pairs.logits(frames, _partner(seeds), seeds)  # type: ignore[operator]
                right = torch.stack([logits[0] > 0, logits[1] <= 0])
                told[f"pairs_{size}_accuracy"] = float(right.float().mean())
        return {**frame_statistics(frames), **told}


def _partner(seeds: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """For each item the place of another, whatever the order of the batch; its own where it is alone."""
    found = partners(Draws(seeds, "pase"), 1)
    return found[:, 0] if found.shape[1] else torch.zeros_like(seeds)


def pase_distortions(noise: Clips | None = None, rirs: Clips | None = None, strength: float = 1.0) -> Chain:
    """What the encoder hears through (section 2.1, table 1).

    Args:
        noise: recordings; coloured noise where None.
        rirs: impulse responses; simulated rooms where None.
        strength: factor on all probabilities.
    """
    low, high = (0.0, 10.0), (5.0, 10.0)
    steps: list[tuple[str, float, dict[str, Any]]] = [
        ("reverb", 0.5, {"rirs": rirs}),
        ("noise", 0.4, {"clips": noise, "snr_db": low}),
        ("band_drop", 0.35, {"max_bands": 1}),
        ("gsm", 0.25, {}),  # the paper thins samples out to 8 kHz: the telephone band
        ("clip", 0.2, {"share": (0.1, 0.5)}),
        ("chunk_drop", 0.2, {}),
        ("mix", 0.1, {"snr_db": high, "share": (0.3, 1.0)}),
    ]
    return Chain([build_augmentation(name, prob=min(1.0, strength * prob), **rest) for name, prob, rest in steps])


def pase_objective(**changes: Any) -> PaseObjectiveConfig:
    """All workers of PASE+."""
    return replace(PaseObjectiveConfig(), **changes)


def pase_toy_objective(**changes: Any) -> PaseObjectiveConfig:
    """The workers that are cheap on a CPU: no waveform, no pitch, short windows, no derivatives."""
    sizes: dict[str, Any] = {"regressors": ("fbank", "gammatone", "mfcc"), "waveform": False, "deltas": 0}
    return pase_objective(**{**sizes, "hidden_dim": 128, **changes})


def build(
    encoder: nn.Module,
    config: PaseObjectiveConfig,
    distort: Callable[[Batch], Batch] | None = None,
    statistics: Mapping[str, Tensor] | None = None,
) -> Pase:
    """The objective of a configuration; with the workers' statistics, where they have been gathered."""
    objective = Pase(encoder, config, distort)
    if statistics is not None:
        objective.load_target_statistics(statistics)
    return objective
