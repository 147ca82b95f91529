"""Reverberation: impulse responses from a bank, or of rooms drawn for each item."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.audio.augment.clips import Clips
from sonorant.audio.augment.convolve import convolve
from sonorant.audio.augment.draws import per_item
from sonorant.audio.augment.items import Change, Items, augmented, with_duration
from sonorant.audio.augment.level import active_samples, gain_between, mean_power
from sonorant.audio.spatial.rooms import Rooms
from sonorant.core.config import within
from sonorant.core.types import Batch

__all__ = ["Reverb", "direct_path", "reverb"]


class Reverberant(NamedTuple):
    """What `reverb` returns."""

    waveform: Tensor
    lengths: Tensor
    delay: Tensor
    """Samples by which everything came later, for each item."""


def direct_path(rir: Float[Tensor, "batch *channel tap"]) -> Int[Tensor, " batch"]:
    """The tap of the direct sound: the first that reaches half the largest one, in any channel.

    Not the largest itself, which may be a reflection where the source is far.
    """
    size = rir.detach().abs()
    size = size if size.dim() == 2 else size.amax(dim=1)
    return (size >= 0.5 * size.amax(dim=1, keepdim=True)).int().argmax(dim=1)


def reverb(
    waveform: Float[Tensor, "batch *channel time"],
    lengths: Int[Tensor, " batch"],
    rir: Float[Tensor, "batch *one tap"],
    *,
    sample_rate: int,
    align: bool = True,
    keep_tail: bool = False,
    keep_level: bool = True,
) -> Reverberant:
    """Convolves each item with its impulse response.

    Args:
        waveform: zeros beyond each item's length.
        lengths: samples of each item.
        rir: one for each item, and for each channel where it has three axes.
        sample_rate: Hz.
        align: start at the direct path, so that labels keep their times; without it the item is late by the direct path.
        keep_tail: lengthen the items by the response; without it they are cut at their old lengths.
        keep_level: scale to the level before, over the active samples.
    """
    direct = direct_path(rir)
    skipped = direct if align else torch.zeros_like(direct)
    num_taps = rir.shape[-1]
    room = with_duration(waveform, waveform.shape[-1] + num_taps - 1)
    full = convolve(room, rir.to(waveform))
    steps = torch.arange(full.shape[-1], device=full.device) + skipped[:, None]
    steps = steps.clamp(max=full.shape[-1] - 1)
    shifted = full.gather(-1, steps if full.dim() == 2 else steps[:, None].expand_as(full))
    new_lengths = lengths + (num_taps - 1 - skipped) if keep_tail else lengths
    shifted = with_duration(shifted, waveform.shape[-1] + (num_taps - 1 if keep_tail else 0))
    if keep_level:
        before = mean_power(waveform.detach(), active_samples(waveform, lengths, sample_rate))
        after = mean_power(shifted.detach(), active_samples(shifted, new_lengths, sample_rate))
        shifted = shifted * per_item(gain_between(before, after, torch.zeros_like(after)), shifted)
    return Reverberant(shifted, new_lengths, direct - skipped)


@dataclass(frozen=True, kw_only=True)
class Reverb:
    """Puts each item into a room.

    Rooms are drawn anew for each item, unless a bank of measured (or simulated) responses is given.

    >>> batch = Batch(torch.randn(1, 800), torch.tensor([800]), 16000, seeds=torch.tensor([1]))
    >>> Reverb(rooms=Rooms(rt60=(0.2, 0.3)))(batch).waveform.shape
    torch.Size([1, 800])
    """

    rirs: Clips | None = None
    """Impulse responses; with several channels where the batch has as many."""
    rooms: Rooms = field(default_factory=Rooms)
    """Where no responses are given."""
    align: bool = True
    """Compensate the delay of the direct path; without it segments are shifted."""
    keep_tail: bool = False
    """Let the room ring on after the item's end, which makes it longer."""
    keep_level: bool = True
    """Scale to the level before."""
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("Reverb.prob", self.prob, 0, 1)

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        if self.rirs is not None:
            self.rirs.expect_rate(batch.sample_rate, "Reverb")
        return augmented(batch, f"{stream}/reverb", self.prob, self._change)

    def _change(self, items: Items) -> Change:
        done = reverb(
            items.waveform,
            items.lengths,
            self._responses(items),
            sample_rate=items.sample_rate,
            align=self.align,
            keep_tail=self.keep_tail,
            keep_level=self.keep_level,
        )
        lengths = done.lengths if self.keep_tail else None
        return Change(done.waveform, lengths, shift=None if self.align else done.delay / items.sample_rate)

    def _responses(self, items: Items) -> Float[Tensor, "part channel tap"]:
        draws = items.draws
        if self.rirs is None:
            return self.rooms.draw(draws.seeds, f"{draws.stream}/room", items.sample_rate)[:, None]
        return self.rirs.padded(draws.integer("rir", 0, len(self.rirs)))
