"""Mixing: a stretch of another item of the batch over each item, at a ratio, with the overlap written into the labels."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.audio.augment.clips import Clips, partners
from sonorant.audio.augment.draws import Draws, check_range, draws_of, ensure_float, per_item
from sonorant.audio.augment.items import Change, Items, augmented
from sonorant.audio.augment.level import active_samples, gain_between, mean_power
from sonorant.core.config import within
from sonorant.core.types import Batch, Segment, Segments

__all__ = ["Mix", "mix"]


class Mixture(NamedTuple):
    """What `mix` returns: `waveform = item + other`."""

    waveform: Tensor
    other: Tensor
    """The second talker as it stands in the mixture: placed and scaled."""


def mix(
    waveform: Float[Tensor, "batch *channel time"],
    lengths: Int[Tensor, " batch"],
    other: Float[Tensor, "batch *channel time"],
    snr_db: Float[Tensor, " batch"],
    start: Int[Tensor, " batch"],
    duration: Int[Tensor, " batch"],
    *,
    sample_rate: int,
) -> Mixture:
    """Lays `duration` samples of `other` over the waveform from sample `start` on, `snr_db` below it.

    Both levels are those of each talker's own active frames: the waveform's over the whole item, the other's over the
    stretch that is heard.

    Args:
        waveform: the main talker.
        lengths: samples of each item.
        other: its first `duration` samples are used.
        snr_db: ratio of the main talker to the other.
        start: where the other begins, in samples.
        duration: how long it is heard, in samples; what would stand beyond the item's end is cut off.
        sample_rate: Hz.
    """
    steps = torch.arange(waveform.shape[-1], device=waveform.device)
    end = torch.minimum(start + duration.clamp(max=other.shape[-1]), lengths)
    inside = (steps >= start[:, None]) & (steps < end[:, None])
    where = (steps - start[:, None]).clamp(0, other.shape[-1] - 1)
    if waveform.dim() == 3:
        inside, where = inside[:, None], where[:, None].expand(*waveform.shape[:2], -1)
    placed = torch.where(inside, other.gather(-1, where), other.new_zeros(()))
    power = mean_power(waveform.detach(), active_samples(waveform, lengths, sample_rate))
    other_power = mean_power(placed.detach(), active_samples(placed, lengths, sample_rate))
    placed = placed * per_item(gain_between(power, other_power, snr_db), waveform)
    return Mixture(waveform + placed, placed)


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Lays a stretch of another item of the batch over each item; the item's own labels stay the truth about it.

    `labels["overlap"]` tells for each item where the other is heard (label: the other's id, or its index in the batch), and
    with `both_segments` the other's segments inside this stretch are added to `labels["segments"]`, which diarisation
    wants. The partner comes from the batch, so an item's sound depends on its neighbours (their order plays no part); a batch
    of one item stays as it is. As utterance mixing in WavLM (arXiv:2110.13900, section III-B).
    """

    snr_db: tuple[float, float] = (-5.0, 5.0)
    """Range of the ratio of the item to the other."""
    share: tuple[float, float] = (0.1, 0.5)
    """Range of the overlap's duration as a share of the item's."""
    both_segments: bool = False
    """Whether the other's segments are added to the item's."""
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("Mix.prob", self.prob, 0, 1)
        check_range("Mix.share", self.share, 0, 1)
        check_range("Mix.snr_db", self.snr_db)

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        stream = f"{stream}/mix"
        draws = draws_of(batch, stream)
        if len(batch) < 2:
            nothing = batch.labels.get("overlap", Segments(((),) * len(batch)))
            return replace(batch, labels={**batch.labels, "overlap": nothing})
        partner = partners(draws, 1)[:, 0]
        plan = self._plan(draws, batch.lengths.to(partner.device), partner)
        waveform = ensure_float(batch.waveform if batch.waveform.dim() == 3 else batch.waveform[:, None])
        clips = Clips.of_batch(waveform, plan.lengths, batch.sample_rate)

        def change(items: Items) -> Change:
            mine = plan.at(items.index)
            other = clips.take(mine.partner, mine.origin, items.waveform.shape[-1])
            snr_db = items.draws.uniform("snr_db", *self.snr_db)
            rate = items.sample_rate
            mixed = mix(items.waveform, items.lengths, other, snr_db, mine.start, mine.duration, sample_rate=rate)
            return Change(mixed.waveform)

        mixed = augmented(batch, stream, self.prob, change)
        return replace(mixed, labels=self._labels(batch, plan, draws.chosen(self.prob)))

    def _plan(self, draws: Draws, lengths: Tensor, partner: Tensor) -> "Plan":
        """Which stretch of the partner goes where; all of it fits into both items."""
        share = draws.uniform("share", *self.share)
        duration = torch.minimum((share * lengths).round().long().clamp(min=1), lengths[partner])
        start = draws.integer("start", 0, lengths - duration + 1)
        origin = draws.integer("origin", 0, lengths[partner] - duration + 1)
        return Plan(partner, start, origin, duration, lengths)

    def _labels(self, batch: Batch, plan: "Plan", chosen: Tensor) -> dict[str, object]:
        labels = dict(batch.labels)
        size = len(batch)
        heard = labels.get("overlap", Segments(((),) * size))
        own = labels.get("segments")
        rows = zip(chosen.tolist(), *(value.tolist() for value in plan[:4]), strict=True)
        overlaps, segments = [], []
        for item, (mixed, partner, *samples) in enumerate(rows):
            start, origin, duration = (count / batch.sample_rate for count in samples)
            name = batch.ids[partner] if batch.ids else str(partner)
            overlaps.append(_ordered(heard[item], [Segment(start, duration, name)] if mixed else []))
            if own is not None:
                others = _shifted(own[partner], origin, duration, start - origin) if mixed else []
                segments.append(_ordered(own[item], others))
        labels["overlap"] = Segments(tuple(overlaps))
        if own is not None and self.both_segments:
            labels["segments"] = Segments(tuple(segments))
        return labels


class Plan(NamedTuple):
    """In samples, one entry an item."""

    partner: Tensor
    start: Tensor
    """In the item."""
    origin: Tensor
    """In the partner."""
    duration: Tensor
    lengths: Tensor

    def at(self, index: Tensor) -> "Plan":
        return Plan(*(value[index] for value in self))


def _ordered(first: Iterable[Segment], second: Iterable[Segment]) -> tuple[Segment, ...]:
    return tuple(sorted((*first, *second), key=lambda segment: segment.start))


def _shifted(segments: Iterable[Segment], origin: float, duration: float, shift: float) -> list[Segment]:
    """What of the segments lies in [origin, origin + duration), moved by `shift` seconds."""
    found = []
    for segment in segments:
        start, end = max(segment.start, origin), min(segment.end, origin + duration)
        if end > start:
            found.append(segment._replace(start=start + shift, duration=end - start))
    return found
