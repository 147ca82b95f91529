"""Vocal tract length perturbation: the frequency axis of log mel energies warped, one factor an item.

What `formant` does to a waveform by linear prediction, done to features for next to nothing: pitch harmonics move along,
which forty bands do not resolve.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.audio.augment.draws import Draws, check_range
from sonorant.audio.features.fbank import mel_scale
from sonorant.core.config import within
from sonorant.core.errors import ConfigError
from sonorant.core.types import Features

__all__ = ["TractWarp", "warp_bands"]


def warp_bands(
    values: Float[Tensor, "batch frame dim"],
    factor: Float[Tensor, " batch"],
    *,
    low_hz: float,
    high_hz: float,
    knee: float = 0.85,
) -> Float[Tensor, "batch frame dim"]:
    """Log energies of Kaldi's mel bands as if every formant stood at `factor` times its frequency.

    Frequencies are scaled by the factor up to `knee` × high_hz (less where the factor is above 1), and from there by a
    straight line that leaves high_hz where it is (Jaitly & Hinton, 2013, section 3: piecewise linear warp). Between bands
    by a straight line along mel.

    Args:
        values: log energies of `dim` bands between the two frequencies.
        factor: above 1 the speaker sounds smaller.
        low_hz: lower end of the first band.
        high_hz: upper end of the last band.
        knee: where the second line begins, as a share of high_hz.
    """
    dim = values.shape[2]
    ends = mel_scale(torch.tensor([low_hz, high_hz], dtype=torch.float64, device=values.device))
    step = (ends[1] - ends[0]) / (dim + 1)
    mels = ends[0] + step * torch.arange(1, dim + 1, device=values.device, dtype=torch.float64)
    wanted = 700.0 * torch.expm1(mels / 1127.0)[None]
    scale = factor.to(values.device).double()[:, None]
    # The line bends where neither its start nor its image lies beyond the knee.
    start = knee * high_hz / scale.clamp(min=1)
    above = start + (wanted - scale * start) * (high_hz - start) / (high_hz - scale * start)
    source = torch.where(wanted <= scale * start, wanted / scale, above)
    place = ((mel_scale(source) - ends[0]) / step - 1).clamp(0, dim - 1)
    left = place.floor().long().clamp(max=max(0, dim - 2))
    share = (place - left).to(values.dtype)
    right = (left + 1).clamp(max=dim - 1)
    picks = torch.zeros(len(values), dim, dim, dtype=values.dtype, device=values.device)
    picks = picks.scatter_add(1, left[:, None], (1 - share)[:, None]).scatter_add(1, right[:, None], share[:, None])
    return values @ picks


@dataclass(frozen=True, kw_only=True)
class TractWarp:
    """Warps each item's log mel energies by a factor of its own; they must not have been normalised band by band.

    >>> features = Features(torch.randn(1, 200, 80), torch.tensor([200]), 100.0)
    >>> TractWarp()(features, torch.tensor([1])).values.shape
    torch.Size([1, 200, 80])
    """

    factor: tuple[float, float] = (0.85, 1.18)
    """Range of the factor of frequencies, drawn evenly in its logarithm."""
    low_hz: float = 20.0
    """Lower end of the first band."""
    high_hz: float = 8000.0
    """Upper end of the last band."""
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("TractWarp.prob", self.prob, 0, 1)
        check_range("TractWarp.factor", self.factor, 0.5, 2)
        if not 0 <= self.low_hz < self.high_hz:
            raise ConfigError(f"TractWarp needs 0 ≤ low_hz < high_hz, got {self.low_hz:g} and {self.high_hz:g}")

    def __call__(self, features: Features, seeds: Int[Tensor, " batch"] | None, stream: str = "") -> Features:
        """Features after the warp; padding stays zero.

        Args:
            features: log energies of Kaldi's mel bands.
            seeds: of the batch that they were made from (`batch.seeds`).
            stream: as in `Augmentation`.

        Raises:
            ConfigError: there are no seeds.
        """
        draws = Draws.of_features(seeds, features.values.device, f"{stream}/tract_warp", "TractWarp")
        factor = draws.uniform("factor", *map(math.log, self.factor)).exp()
        warped = warp_bands(features.values, factor, low_hz=self.low_hz, high_hz=self.high_hz)
        return replace(features, values=torch.where(draws.chosen(self.prob)[:, None, None], warped, features.values))
