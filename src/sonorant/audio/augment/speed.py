"""Speed: faster or slower by resampling, which moves the pitch along (Ko et al., 2015, audio augmentation for ASR)."""

from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.audio.augment.items import Change, Items, augmented, silenced
from sonorant.audio.resample import resample, resampled_length
from sonorant.core.config import within
from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch

__all__ = ["Speed", "as_ratio", "change_speed", "resample_groups"]


def as_ratio(factor: float, largest: int = 100) -> Fraction:
    """The fraction nearest to a factor in whole numbers, which a resampler needs, the smaller one up to `largest`.

    >>> as_ratio(0.9), as_ratio(2 ** (1 / 12))
    (Fraction(9, 10), Fraction(89, 84))
    """
    return Fraction(factor).limit_denominator(largest) if factor >= 1 else 1 / as_ratio(1 / factor, largest)


def change_speed(
    waveform: Float[Tensor, "batch *channel time"], lengths: Int[Tensor, " batch"], factor: float
) -> tuple[Float[Tensor, "batch *channel new_time"], Int[Tensor, " batch"]]:
    """Plays every item `factor` times as fast: lengths divided by it, frequencies times it.

    Returns:
        The waveform, zero beyond the new lengths, and these.
    """
    ratio = as_ratio(factor)
    new_lengths = resampled_length(lengths, ratio.numerator, ratio.denominator)
    return silenced(resample(waveform, ratio.numerator, ratio.denominator), new_lengths), new_lengths


def resample_groups(
    waveform: Float[Tensor, "batch channel time"], which: Int[Tensor, " batch"], ratios: list[Fraction]
) -> Float[Tensor, "batch channel new_time"]:
    """Item i resampled as `ratios[which[i]]` to 1, all those of one ratio at once.

    A polyphase kernel belongs to one pair of rates. With a few set ratios each is built once and kept, and a batch costs one
    matrix product for each ratio it holds; ratios from a continuous range would need a kernel for every item.
    """
    longest = max(resampled_length(waveform.shape[-1], r.numerator, r.denominator) for r in ratios)
    result = waveform.new_zeros(*waveform.shape[:-1], longest)
    for group, ratio in enumerate(ratios):
        index = (which == group).nonzero()[:, 0]
        if len(index):
            part = resample(waveform[index], ratio.numerator, ratio.denominator)
            result = result.index_copy(0, index, torch.nn.functional.pad(part, (0, longest - part.shape[-1])))
    return result


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Plays each item at one of a few speeds; segments are scaled.

    >>> batch = Batch(torch.randn(1, 900), torch.tensor([900]), 16000, seeds=torch.tensor([1]))
    >>> Speed(factors=(0.9,))(batch).lengths
    tensor([1000])
    """

    factors: tuple[float, ...] = (0.9, 1.1)
    """Drawn with equal chances; leave the unchanged share to `prob` (2/3 with these two gives the usual thirds)."""
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("Speed.prob", self.prob, 0, 1)
        if not self.factors:
            raise ConfigError("Speed.factors must hold at least one factor, got none")
        for factor in self.factors:
            within("Speed.factors", factor, 0.1, 10)

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        return augmented(batch, f"{stream}/speed", self.prob, self._change)

    def _change(self, items: Items) -> Change:
        ratios = [as_ratio(factor) for factor in self.factors]
        which = items.draws.integer("factor", 0, len(ratios))
        above = torch.tensor([ratio.numerator for ratio in ratios], device=which.device)[which]
        below = torch.tensor([ratio.denominator for ratio in ratios], device=which.device)[which]
        # `resampled_length` for rates that differ between items.
        lengths = (2 * items.lengths * below + above) // (2 * above)
        return Change(resample_groups(items.waveform, which, ratios), lengths, scale=below / above)
