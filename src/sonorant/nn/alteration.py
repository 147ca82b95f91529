"""Features made worse so that a network can learn to restore them: along time, along frequency, in magnitude.

As in Mockingjay (arXiv:1910.12638, section 2.2) and TERA (arXiv:2007.06028, section II). Each draw is a function of an
item's seed and length, so an item is altered alike alone and in any batch. Read `Alteration`, then the three functions.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sonorant.core.config import at_least, within
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import valid_mask
from sonorant.core.seed import integers, normal, uniform
from sonorant.nn.masking import span_mask

__all__ = ["Alteration", "alter_bands", "alter_magnitude", "alter_time"]


def alter_time(
    values: Float[Tensor, "batch frame dim"],
    lengths: Int[Tensor, " batch"],
    seeds: Int[Tensor, " batch"],
    share: float = 0.15,
    span: int = 7,
    zero_prob: float = 0.8,
    swap_prob: float = 0.1,
    name: str = "alter/time",
) -> tuple[Float[Tensor, "batch frame dim"], Bool[Tensor, "batch frame"]]:
    """Spans of frames are zeroed, replaced by other spans of the same item, or left as they are; one of these for an item.

    Args:
        values: features.
        lengths: frames of each item.
        seeds: of the items.
        share: of the frames, were there no overlaps.
        span: frames.
        zero_prob: probability that an item's spans are zeroed.
        swap_prob: probability that they are replaced; with what is left to 1 they stay, and are asked for all the same.
        name: of the draw.

    Returns:
        The altered features, and True where a frame was chosen.
    """
    num_frames = values.shape[1]
    if num_frames == 0:
        return values, valid_mask(lengths, 0)
    chosen = span_mask(seeds, lengths, num_frames, prob=share, span=span, min_masks=1, name=name)
    dice = uniform(seeds, f"{name}/kind")[:, :1]
    zeroed = chosen & (dice < zero_prob)
    swapped = chosen & (dice >= zero_prob) & (dice < zero_prob + swap_prob)
    # The frames of a run come from one other place, so many frames on (round the end), so that a span stays in one piece.
    steps = torch.arange(num_frames, device=values.device)[None]
    begins = chosen & ~torch.nn.functional.pad(chosen, (1, 0))[:, :num_frames]
    run = torch.where(begins, steps, 0).cummax(dim=1).values
    away = integers(seeds, f"{name}/from", num_frames, 1, lengths.clamp(min=2)).gather(1, run)
    source = torch.where(swapped, (steps + away) % lengths.clamp(min=1)[:, None], steps)
    moved = values.gather(1, source[..., None].expand_as(values))
    return moved.masked_fill(zeroed[..., None], 0), chosen


def alter_bands(
    values: Float[Tensor, "batch frame dim"],
    seeds: Int[Tensor, " batch"],
    max_share: float = 0.2,
    name: str = "alter/bands",
) -> tuple[Float[Tensor, "batch frame dim"], Bool[Tensor, "batch dim"]]:
    """A block of neighbouring bands is zeroed over the whole item; its width is drawn evenly from 0 to `max_share`.

    Returns:
        The altered features, and True where a band was zeroed.
    """
    dim = values.shape[2]
    width = integers(seeds, f"{name}/width", 1, 0, int(max_share * dim) + 1)
    start = (uniform(seeds, f"{name}/start") * (dim - width + 1)).long()
    bands = torch.arange(dim, device=values.device)[None]
    zeroed = (bands >= start) & (bands < start + width)
    return values.masked_fill(zeroed[:, None], 0), zeroed


def alter_magnitude(
    values: Float[Tensor, "batch frame dim"],
    seeds: Int[Tensor, " batch"],
    prob: float = 0.15,
    deviation: float = 0.2,
    name: str = "alter/magnitude",
) -> Float[Tensor, "batch frame dim"]:
    """With probability `prob` normal noise is added to all frames of an item; values are taken to have variance 1."""
    noisy = uniform(seeds, f"{name}/prob")[:, :1] < prob
    if not bool(noisy.any()):
        return values
    noise = normal(seeds, f"{name}/noise", values.shape[1] * values.shape[2]).view(values.shape)
    return values + torch.where(noisy[..., None], deviation * noise, 0).to(values.dtype)


@dataclass(frozen=True, kw_only=True)
class Alteration:
    """What is altered; the defaults are TERA's time, frequency and magnitude (section II-B to II-D).

    >>> values, lengths, seeds = torch.randn(2, 50, 8), torch.tensor([50, 30]), torch.tensor([1, 2])
    >>> altered, asked = Alteration()(values, lengths, seeds)
    >>> altered.shape, asked.shape, bool(asked[1, 30:].any())
    (torch.Size([2, 50, 8]), torch.Size([2, 50, 8]), False)
    """

    time_share: float = 0.15
    """Share of frames in spans (P_T)."""
    span: int = 7
    """Frames of a span (W_T); with stacked frames, a multiple of the stack."""
    zero_prob: float = 0.8
    """Probability that an item's spans are zeroed."""
    swap_prob: float = 0.1
    """Probability that they are replaced by other frames of the item."""
    band_share: float = 0.2
    """Largest share of bands that are zeroed (W_C of 16 of 80 bands)."""
    noise_prob: float = 0.15
    """Probability that an item's magnitudes are altered (P_N)."""
    noise_deviation: float = 0.2
    """Of the noise, for features of variance 1."""

    def __post_init__(self) -> None:
        for name in ("time_share", "zero_prob", "swap_prob", "band_share", "noise_prob"):
            within(name, getattr(self, name), 0, 1)
        at_least("span", self.span, 1)
        at_least("noise_deviation", self.noise_deviation, 0)
        if self.zero_prob + self.swap_prob > 1:
            raise ConfigError(
                f"zero_prob and swap_prob must be at most 1 together, got {self.zero_prob} and {self.swap_prob}"
            )
        if self.time_share == self.band_share == 0:
            raise ConfigError("time_share and band_share are both 0: nothing would be asked for")

    def __call__(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"], seeds: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch frame dim"], Bool[Tensor, "batch frame dim"]]:
        """The altered features, and True where a value is asked for: chosen frames, and zeroed bands of all frames."""
        asked = torch.zeros_like(values, dtype=torch.bool)
        if self.time_share:
            spans = (self.time_share, self.span, self.zero_prob, self.swap_prob)
            values, frames = alter_time(values, lengths, seeds, *spans)
            asked = asked | frames[..., None]
        if self.band_share:
            values, bands = alter_bands(values, seeds, self.band_share)
            asked = asked | bands[:, None]
        if self.noise_prob:
            values = alter_magnitude(values, seeds, self.noise_prob, self.noise_deviation)
        return values, asked & valid_mask(lengths, values.shape[1])[..., None]
