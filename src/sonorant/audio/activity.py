"""Speech activity by energy: what rises above an item's own noise floor, with hangover, as segments.

A rule, not a model: right for clean recordings and for trimming, and a baseline for what is trained.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sonorant.audio.frames import Framing, map_frames
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import valid_mask
from sonorant.core.types import Segment, Segments

__all__ = ["active_frames", "activity"]


def frame_energies_db(
    waveform: Float[Tensor, "batch time"],
    sample_rate: int,
    lengths: Int[Tensor, " batch"] | None = None,
    frame_length: float = 0.025,
    hop: float = 0.01,
) -> tuple[Float[Tensor, "batch frame"], Int[Tensor, " batch"]]:
    """Mean square about the mean of each frame in dB, and frames of each item; frames are centred on each hop."""
    framing = Framing(round(sample_rate * frame_length), round(sample_rate * hop), "mirror")
    if lengths is None:
        lengths = torch.full((len(waveform),), waveform.shape[1], device=waveform.device)

    def energy(rows: Tensor) -> Tensor:
        return 10 * torch.log10(rows.var(dim=1, correction=0, keepdim=True) + 1e-10)

    return map_frames(waveform, lengths, framing, energy, 1)[:, :, 0], framing.geometry.output_lengths(lengths)


def active_frames(
    energies: Float[Tensor, "batch frame"],
    lengths: Int[Tensor, " batch"],
    margin_db: float = 12.0,
    range_db: float = 35.0,
    floor_db: float = -60.0,
) -> Bool[Tensor, "batch frame"]:
    """Frames louder than a threshold of the item's own.

    The threshold lies `margin_db` above the noise floor (the tenth percentile), but not within 6 dB of the loud parts (the
    95th percentile), so that an item without pauses stays whole; and never more than `range_db` below those, nor below
    `floor_db`.

    Args:
        energies: dB of each frame.
        lengths: frames of each item.
        margin_db: dB above the noise floor.
        range_db: dB below the loud parts at which everything counts as noise.
        floor_db: dB below full scale at which everything counts as silence.
    """
    mask = valid_mask(lengths, energies.shape[1])
    ordered = energies.masked_fill(~mask, float("inf")).sort(dim=1).values

    def percentile(share: float) -> Tensor:
        at = ((lengths - 1).clamp(min=0) * share).round().long()
        return ordered.gather(1, at[:, None])

    if energies.shape[1] == 0:
        return mask
    quiet, loud = percentile(0.1), percentile(0.95)
    threshold = torch.minimum(quiet + margin_db, loud - 6)
    threshold = torch.maximum(threshold, loud - range_db).clamp(min=floor_db)
    return mask & (energies > threshold)


def activity(
    waveform: Float[Tensor, "batch time"],
    sample_rate: int,
    lengths: Int[Tensor, " batch"] | None = None,
    margin_db: float = 12.0,
    hangover: float = 0.1,
    min_speech: float = 0.05,
    min_silence: float = 0.2,
    label: str = "speech",
) -> Segments:
    """Segments of each item in which there is sound.

    Args:
        waveform: signals.
        sample_rate: Hz.
        lengths: samples of each item.
        margin_db: dB above the item's noise floor that count; see `active_frames`.
        hangover: seconds added on either side of what was found, for soft beginnings and fading ends.
        min_speech: what is shorter, in seconds and before the hangover, is dropped as a click.
        min_silence: gaps shorter than this, in seconds, are closed.
        label: of the segments; their score is 1.

    >>> tone = torch.sin(torch.arange(16000) * 0.1)
    >>> tone[:8000] = 0
    >>> [(round(s.start, 1), round(s.end, 1)) for s in activity(tone[None], 16000)[0]]
    [(0.4, 1.0)]
    """
    if min(hangover, min_speech, min_silence) < 0:
        raise ConfigError(
            f"hangover, min_speech and min_silence are seconds ≥ 0, got {hangover}, {min_speech} and {min_silence}"
        )
    hop = round(sample_rate * 0.01) / sample_rate
    energies, counts = frame_energies_db(waveform, sample_rate, lengths)
    active = active_frames(energies, counts, margin_db)
    samples = [waveform.shape[1]] * len(waveform) if lengths is None else lengths.tolist()
    items = []
    for runs, total in zip(_runs(active), samples, strict=True):
        spans = [(begin * hop, end * hop) for begin, end in runs if (end - begin) * hop >= min_speech - 1e-9]
        end_of_item = total / sample_rate
        wider = [(max(0.0, begin - hangover), min(end_of_item, end + hangover)) for begin, end in spans]
        items.append(tuple(Segment(begin, end - begin, label) for begin, end in _joined(wider, min_silence)))
    return Segments(tuple(items))


def _runs(active: Bool[Tensor, "batch frame"]) -> list[list[tuple[int, int]]]:
    """First and one-past-last frame of each run of True."""
    edges = F.pad(active.to(torch.int8), (1, 1)).diff(dim=1)
    runs: list[list[tuple[int, int]]] = [[] for _ in range(len(active))]
    begins, ends = (edges == 1).nonzero().tolist(), (edges == -1).nonzero().tolist()
    for (item, begin), (_, end) in zip(begins, ends, strict=True):
        runs[item].append((begin, end))
    return runs


def _joined(spans: list[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    joined: list[tuple[float, float]] = []
    for begin, end in spans:
        if joined and begin - joined[-1][1] < gap:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined
