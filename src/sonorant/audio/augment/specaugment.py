"""SpecAugment: time warp, frequency masks and time masks on features (Park et al., 2019, arXiv:1904.08779)."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sonorant.audio.augment.draws import Draws
from sonorant.core.config import at_least, within
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import valid_mask
from sonorant.core.types import Features

__all__ = ["SpecAugment", "span_mask", "warp_time"]


def span_mask(
    start: Int[Tensor, "batch span"], size: Int[Tensor, "batch span"], num_steps: int
) -> Bool[Tensor, "batch step"]:
    """True inside any of an item's spans.

    >>> span_mask(torch.tensor([[0, 2]]), torch.tensor([[1, 2]]), 5).int().tolist()
    [[1, 0, 1, 1, 0]]
    """
    steps = torch.arange(num_steps, device=start.device)[None, None]
    inside = (steps >= start[..., None]) & (steps < (start + size)[..., None])
    return inside.any(dim=1)


def warp_time(
    values: Float[Tensor, "batch frame dim"],
    lengths: Int[Tensor, " batch"],
    center: Int[Tensor, " batch"],
    shift: Int[Tensor, " batch"],
) -> Float[Tensor, "batch frame dim"]:
    """Moves frame `center` by `shift`; the frames before and after it are stretched evenly, first and last frame stay.

    The paper's sparse image warp with one control point is such a map along the middle line; between frames by a straight
    line. Frames beyond an item's length stay as they are.
    """
    frames = torch.arange(values.shape[1], device=values.device, dtype=torch.float32)
    middle = (center + shift).float()[:, None]
    old, last = center.float()[:, None], (lengths - 1).float()[:, None]
    before = frames * old / middle.clamp(min=1)
    after = old + (frames - middle) * (last - old) / (last - middle).clamp(min=1)
    where = torch.where(frames < middle, before, after)
    where = torch.where(frames < lengths[:, None], where, frames).clamp(0, values.shape[1] - 1)
    left = where.floor().long()
    right = (left + 1).clamp(max=values.shape[1] - 1)
    share = (where - left).to(values.dtype)[..., None]
    index = torch.arange(len(values), device=values.device)[:, None]
    return values[index, left] * (1 - share) + values[index, right] * share


@dataclass(frozen=True, kw_only=True)
class SpecAugment:
    """Masks and warps features; each item's masks lie inside its own length.

    Defaults are the paper's LibriSpeech Double policy for 100 frames a second, with time masks limited to a share of the
    item as in its policies for small data.

    >>> features = Features(torch.randn(1, 200, 80), torch.tensor([200]), 100.0)
    >>> SpecAugment()(features, torch.tensor([1])).values.shape
    torch.Size([1, 200, 80])
    """

    num_freq_masks: int = 2
    freq_width: int = 27
    """Widest frequency mask, in bins (F)."""
    num_time_masks: int = 2
    time_width: int = 100
    """Longest time mask, in frames (T)."""
    time_share: float = 0.2
    """Longest time mask as a share of the item (p)."""
    masks_per_frame: float = 0.0
    """Above 0 the number of time masks is this times the length, up to `num_time_masks` (arXiv:1912.05533)."""
    warp: int = 0
    """Farthest that a frame is moved in time (W); 0 for no warp."""
    fill: str = "mean"
    """What masks are filled with: `"mean"` of the item, or `"zero"`."""
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("SpecAugment.prob", self.prob, 0, 1)
        within("SpecAugment.time_share", self.time_share, 0, 1)
        for name in ("num_freq_masks", "freq_width", "num_time_masks", "time_width", "masks_per_frame", "warp"):
            at_least(f"SpecAugment.{name}", getattr(self, name), 0)
        if self.fill not in ("mean", "zero"):
            raise ConfigError(f"SpecAugment.fill must be 'mean' or 'zero', got '{self.fill}'")

    def __call__(self, features: Features, seeds: Int[Tensor, " batch"] | None, stream: str = "") -> Features:
        """Features after warp and masks; padding stays zero.

        Args:
            features: padded at the end.
            seeds: of the batch that they were made from (`batch.seeds`).
            stream: as in `Augmentation`.

        Raises:
            ConfigError: there are no seeds.
        """
        draws = Draws.of_features(seeds, features.values.device, f"{stream}/spec_augment", "SpecAugment")
        values, lengths = features.values, features.lengths.to(features.values.device)
        valid = valid_mask(lengths, values.shape[1])[..., None]
        if self.warp:
            values = self._warped(values, lengths, draws)
        masked = (
            self._freq_mask(draws, values.shape[2])[:, None]
            | self._time_mask(draws, lengths, values.shape[1])[..., None]
        )
        zero = values.new_zeros(())
        fill = self._mean(values, valid) if self.fill == "mean" else zero
        values = torch.where(masked, fill, values)
        chosen = draws.chosen(self.prob)[:, None, None]
        return replace(features, values=torch.where(valid, torch.where(chosen, values, features.values), zero))

    def _mean(self, values: Tensor, valid: Tensor) -> Float[Tensor, "batch 1 1"]:
        inside = torch.where(valid, values.detach(), values.new_zeros(()))
        count = valid.sum(dim=(1, 2), keepdim=True).clamp(min=1) * values.shape[2]
        return inside.sum(dim=(1, 2), keepdim=True) / count

    def _freq_mask(self, draws: Draws, dim: int) -> Bool[Tensor, "batch dim"]:
        widest = min(self.freq_width, dim)
        size = (draws.uniforms("freq_size", self.num_freq_masks) * (widest + 1)).long()
        start = (draws.uniforms("freq_start", self.num_freq_masks) * (dim - size + 1)).long()
        return span_mask(start, size, dim)

    def _time_mask(self, draws: Draws, lengths: Tensor, num_frames: int) -> Bool[Tensor, "batch frame"]:
        longest = (lengths * self.time_share).long().clamp(max=self.time_width)[:, None]
        size = (draws.uniforms("time_size", self.num_time_masks) * (longest + 1)).long()
        start = (draws.uniforms("time_start", self.num_time_masks) * (lengths[:, None] - size + 1)).long()
        if self.masks_per_frame:
            count = (lengths * self.masks_per_frame).long()[:, None]
            size = size * (torch.arange(self.num_time_masks, device=size.device) < count)
        return span_mask(start, size, num_frames)

    def _warped(self, values: Tensor, lengths: Tensor, draws: Draws) -> Tensor:
        # A centre at least `reach` from both ends can move by up to `reach`, less one frame, to either side.
        reach = torch.minimum(torch.full_like(lengths, self.warp), (lengths - 1) // 2).clamp(min=0)
        center = draws.integer("warp_center", 0, (lengths - 2 * reach).clamp(min=1)) + reach
        shift = draws.integer("warp_shift", 0, (2 * reach - 1).clamp(min=1)) - (reach - 1).clamp(min=0)
        return warp_time(values, lengths, center, shift)
