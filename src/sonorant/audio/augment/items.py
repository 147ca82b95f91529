"""What every augmentation shares: choose the items, change only these, put them back, keep lengths and times right."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from sonorant.audio.augment.draws import Draws, draws_of, ensure_float
from sonorant.core.lengths import valid_mask
from sonorant.core.types import Batch, Segment, Segments

__all__ = ["Change", "Items", "augmented", "moved_segments", "silenced", "with_duration"]


@dataclass(frozen=True)
class Items:
    """The chosen items of a batch."""

    waveform: Float[Tensor, "part channel time"]
    """float32 or float64; mono audio has one channel here."""
    lengths: Int[Tensor, " part"]
    sample_rate: int
    draws: Draws
    index: Int[Tensor, " part"]
    """Where they stand in the batch."""


@dataclass(frozen=True)
class Change:
    """Changed items; times become `time * scale + shift`."""

    waveform: Float[Tensor, "part channel time"]
    lengths: Int[Tensor, " part"] | None = None
    """None where they stay."""
    scale: Float[Tensor, " part"] | None = None
    shift: Float[Tensor, " part"] | None = None
    """Seconds."""


def augmented(batch: Batch, stream: str, prob: float, change: Callable[[Items], Change]) -> Batch:
    """Applies `change` to the items that draw below `prob`.

    Only these items are computed, so the cost goes with `prob`. Padding is set to exact zeros afterwards.
    """
    draws = draws_of(batch, stream)
    index = draws.chosen(prob).nonzero()[:, 0]
    if not len(index):
        return batch
    every = len(index) == len(batch)
    waveform = ensure_float(batch.waveform if batch.waveform.dim() == 3 else batch.waveform[:, None])
    part = waveform if every else waveform[index]
    lengths = batch.lengths.to(waveform.device)
    done = change(Items(part, lengths[index], batch.sample_rate, draws.at(index), index))
    new_lengths = lengths if done.lengths is None else lengths.index_copy(0, index, done.lengths.to(lengths))
    num_samples = waveform.shape[-1] if done.lengths is None else int(new_lengths.max())
    changed = silenced(with_duration(done.waveform, num_samples), new_lengths[index]).to(batch.waveform.dtype)
    if not every:
        whole = with_duration(waveform, num_samples).to(batch.waveform.dtype)
        changed = whole.index_copy(0, index, changed)
    return replace(
        batch,
        waveform=changed if batch.waveform.dim() == 3 else changed[:, 0],
        lengths=new_lengths.to(batch.lengths.device),
        labels=_moved_labels(batch.labels, index, done, new_lengths, batch.sample_rate),
    )


def with_duration(waveform: Tensor, num_samples: int) -> Tensor:
    """Cut, or padded with zeros, to `num_samples`."""
    missing = num_samples - waveform.shape[-1]
    return waveform if not missing else pad(waveform, (0, missing)) if missing > 0 else waveform[..., :num_samples]


def silenced(waveform: Float[Tensor, "batch *channel time"], lengths: Int[Tensor, " batch"]) -> Tensor:
    """Zeros from each item's length on."""
    mask = valid_mask(lengths.to(waveform.device), waveform.shape[-1])
    mask = mask if waveform.dim() == 2 else mask[:, None]
    return torch.where(mask, waveform, waveform.new_zeros(()))


def _moved_labels(
    labels: Mapping[str, Any], index: Tensor, done: Change, lengths: Tensor, sample_rate: int
) -> Mapping[str, Any]:
    if done.scale is None and done.shift is None:
        return labels
    size = len(lengths)
    scale = torch.ones(size, dtype=torch.float64)
    shift = torch.zeros(size, dtype=torch.float64)
    if done.scale is not None:
        scale[index.cpu()] = done.scale.detach().cpu().double()
    if done.shift is not None:
        shift[index.cpu()] = done.shift.detach().cpu().double()
    durations = (lengths.cpu().double() / sample_rate).tolist()
    times = list(zip(scale.tolist(), shift.tolist(), durations))
    return {k: moved_segments(v, times) if isinstance(v, Segments) else v for k, v in labels.items()}


def moved_segments(segments: Segments, times: list[tuple[float, float, float]]) -> Segments:
    """Segments after `time * scale + shift`, cut to the item; what falls outside it altogether is left out.

    Args:
        segments: of each item.
        times: scale, shift in seconds and the item's new duration in seconds, for each item.

    >>> word = Segment(1.0, 0.5, "yes")
    >>> moved_segments(Segments(((word,),)), [(0.5, 0.0, 0.7)])[0]
    (Segment(start=0.5, duration=0.19999999999999996, label='yes', score=1.0),)
    """
    items = []
    for item, (scale, shift, duration) in zip(segments, times, strict=True):
        moved = (_moved(segment, scale, shift, duration) for segment in item)
        items.append(tuple(segment for segment in moved if segment is not None))
    return Segments(tuple(items))


def _moved(segment: Segment, scale: float, shift: float, limit: float) -> Segment | None:
    if scale == 1 and shift == 0 and segment.end <= limit:
        return segment
    start = max(0.0, segment.start * scale + shift)
    end = min(limit, segment.end * scale + shift)
    # A mark (duration 0) at the very end stays; a stretch that was cut away altogether does not.
    if start > limit or (end <= start and segment.duration > 0):
        return None
    return segment._replace(start=start, duration=max(0.0, end - start))
