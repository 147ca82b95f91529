"""Dropping: chunks of time or a clip's soft edges to zero, or narrow bands of frequency out, on the waveform."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.audio.augment.convolve import convolve, sinc_lowpass
from sonorant.audio.augment.draws import check_range
from sonorant.audio.augment.items import Change, Items, augmented
from sonorant.audio.augment.level import active_samples
from sonorant.core.config import at_least, within
from sonorant.core.types import Batch

__all__ = ["BandDrop", "ChunkDrop", "EdgeDrop", "drop_bands", "drop_chunks", "drop_edges"]

FILTER_SECONDS = 0.1
"""Length of the band-stop filter; its edges are 4 / FILTER_SECONDS = 40 Hz wide or so."""


def drop_chunks(
    waveform: Float[Tensor, "batch *channel time"], start: Int[Tensor, "batch chunk"], size: Int[Tensor, "batch chunk"]
) -> Float[Tensor, "batch *channel time"]:
    """Zeros `size` samples from `start` on, for each chunk of each item.

    >>> drop_chunks(torch.ones(1, 5), torch.tensor([[1]]), torch.tensor([[2]])).tolist()
    [[1.0, 0.0, 0.0, 1.0, 1.0]]
    """
    # +1 where a chunk begins and -1 where it ends: the running sum counts the chunks over each sample, in O(time).
    num_samples = waveform.shape[-1]
    edges = torch.zeros(len(waveform), num_samples + 1, dtype=torch.int32, device=waveform.device)
    ones = torch.ones_like(start, dtype=torch.int32)
    edges.scatter_add_(1, start.clamp(0, num_samples), ones)
    edges.scatter_add_(1, (start + size).clamp(0, num_samples), -ones)
    dropped = edges.cumsum(dim=1)[:, :num_samples] > 0
    return waveform.masked_fill(dropped if waveform.dim() == 2 else dropped[:, None], 0.0)


def drop_edges(
    waveform: Float[Tensor, "batch *channel time"],
    lengths: Int[Tensor, " batch"],
    range_db: Float[Tensor, " batch"],
    *,
    sample_rate: int,
) -> Float[Tensor, "batch *channel time"]:
    """Zeros what comes before the first and after the last 20 ms that lie within `range_db` of an item's loudest 20 ms.

    Soft consonants at either end go with the silence, as in clips that were cut by their energy; times stay.
    """
    loud = active_samples(waveform, lengths, sample_rate, range_db)
    inside = loud.cummax(dim=1).values & loud.flip(1).cummax(dim=1).values.flip(1)
    return waveform.masked_fill(~(inside if waveform.dim() == 2 else inside[:, None]), 0.0)


def drop_bands(
    waveform: Float[Tensor, "batch *channel time"],
    center_hz: Float[Tensor, "batch band"],
    width_hz: Float[Tensor, "batch band"],
    *,
    sample_rate: int,
) -> Float[Tensor, "batch *channel time"]:
    """Takes bands out with a linear-phase band-stop filter whose delay is compensated (-60 dB inside the band's edges).

    Args:
        waveform: padded with zeros.
        center_hz: middle of each band.
        width_hz: its width between the half-amplitude points.
        sample_rate: Hz.
    """
    half = max(1, round(FILTER_SECONDS * sample_rate / 2))
    low = sinc_lowpass((center_hz - width_hz / 2) / sample_rate, half)
    high = sinc_lowpass((center_hz + width_hz / 2) / sample_rate, half)
    stops = low - high
    stops[..., half] += 1
    # The stops go one after another, so that where bands overlap nothing is subtracted twice: one filter, their product.
    num_bands = stops.shape[1]
    size = num_bands * 2 * half + 1
    taps = torch.fft.irfft(torch.fft.rfft(stops, size + 1).prod(dim=1), size + 1)[:, :size]
    return convolve(waveform, taps.to(waveform), num_bands * half)


@dataclass(frozen=True, kw_only=True)
class ChunkDrop:
    """Zeros a drawn number of short chunks of each item."""

    max_chunks: int = 5
    """Each item loses from one to so many."""
    seconds: tuple[float, float] = (0.02, 0.1)
    """Range of a chunk's duration."""
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("ChunkDrop.prob", self.prob, 0, 1)
        at_least("ChunkDrop.max_chunks", self.max_chunks, 1)
        check_range("ChunkDrop.seconds", self.seconds, 0)

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        return augmented(batch, f"{stream}/chunk_drop", self.prob, self._change)

    def _change(self, items: Items) -> Change:
        draws, lengths = items.draws, items.lengths[:, None]
        size = draws.uniforms("seconds", self.max_chunks, *self.seconds) * items.sample_rate
        size = torch.minimum(size.round().long().clamp(min=1), lengths)
        start = (draws.uniforms("start", self.max_chunks) * (lengths - size + 1)).long()
        count = draws.integer("count", 1, self.max_chunks + 1)
        used = torch.arange(self.max_chunks, device=size.device) < count[:, None]
        return Change(drop_chunks(items.waveform, start, size * used))


@dataclass(frozen=True, kw_only=True)
class EdgeDrop:
    """Silences the soft beginning and end of each item, as if it had been cut out by its energy."""

    range_db: tuple[float, float] = (6.0, 35.0)
    """Range of how far below the loudest 20 ms sound is kept."""
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("EdgeDrop.prob", self.prob, 0, 1)
        check_range("EdgeDrop.range_db", self.range_db, 0)

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        return augmented(batch, f"{stream}/edge_drop", self.prob, self._change)

    def _change(self, items: Items) -> Change:
        range_db = items.draws.uniform("range_db", *self.range_db)
        return Change(drop_edges(items.waveform, items.lengths, range_db, sample_rate=items.sample_rate))


@dataclass(frozen=True, kw_only=True)
class BandDrop:
    """Takes a drawn number of narrow bands out of each item."""

    max_bands: int = 3
    """Each item loses from one to so many."""
    center_hz: tuple[float, float] = (100.0, 7000.0)
    """Range of the bands' middles; cut to below half the sample rate."""
    width_hz: tuple[float, float] = (100.0, 300.0)
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("BandDrop.prob", self.prob, 0, 1)
        at_least("BandDrop.max_bands", self.max_bands, 1)
        check_range("BandDrop.center_hz", self.center_hz, 0)
        check_range("BandDrop.width_hz", self.width_hz, 0)

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        return augmented(batch, f"{stream}/band_drop", self.prob, self._change)

    def _change(self, items: Items) -> Change:
        draws, rate = items.draws, items.sample_rate
        highest = min(self.center_hz[1], 0.45 * rate)
        center = draws.uniforms("center_hz", self.max_bands, min(self.center_hz[0], highest), highest)
        width = draws.uniforms("width_hz", self.max_bands, *self.width_hz)
        count = draws.integer("count", 1, self.max_bands + 1)
        used = torch.arange(self.max_bands, device=width.device) < count[:, None]
        return Change(drop_bands(items.waveform, center, width * used, sample_rate=rate))
