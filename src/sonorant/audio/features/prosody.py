"""Prosody as four numbers a frame: log pitch, voicing, log energy, rate of zero crossings (PASE's worker)."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sonorant.audio.frames import Framing, map_frames
from sonorant.audio.pitch import f0
from sonorant.core.lengths import Geometry, valid_mask
from sonorant.core.types import Features

__all__ = ["Prosody", "bridged"]

_FLOOR = 1e-10


def bridged(
    values: Float[Tensor, "batch frame"], known: Bool[Tensor, "batch frame"], otherwise: float = 0.0
) -> Float[Tensor, "batch frame"]:
    """Straight lines between known values, the first and the last known one beyond them, `otherwise` where there is none.

    >>> bridged(torch.tensor([[0.0, 2.0, 0.0, 0.0, 5.0]]), torch.tensor([[False, True, False, False, True]])).tolist()
    [[2.0, 2.0, 3.0, 4.0, 5.0]]
    """
    size = values.shape[1]
    if size == 0:
        return values
    steps = torch.arange(size, device=values.device).expand(values.shape)
    before = torch.where(known, steps, -1).cummax(dim=1).values
    after = torch.where(known, steps, size).flip(1).cummin(dim=1).values.flip(1)
    left = torch.where(before < 0, after, before).clamp(0, size - 1)
    right = torch.where(after >= size, before, after).clamp(0, size - 1)
    share = (steps - left) / (right - left).clamp(min=1)
    line = torch.lerp(values.gather(1, left), values.gather(1, right), share.clamp(0, 1).to(values.dtype))
    return torch.where(known.any(dim=1, keepdim=True), line, otherwise)


class Prosody(nn.Module):
    """Log pitch (bridged where unvoiced), voicing (0 or 1), log energy, zero crossings a sample; not differentiable.

    Args:
        sample_rate: Hz.
        frame_length: seconds of the window for energy and zero crossings.
        hop: seconds; frames are centred on its multiples.
        low_hz: lowest pitch looked for.
        high_hz: highest pitch looked for.

    >>> tone = 0.5 * torch.sin(2 * math.pi * 200 * torch.arange(8000) / 16000)[None]
    >>> values = Prosody()(tone).values[0, 25]
    >>> round(float(values[0].exp())), float(values[1]), round(float(values[3]), 2)
    (200, 1.0, 0.02)
    """

    dim = 4

    def __init__(
        self,
        sample_rate: int = 16000,
        frame_length: float = 0.025,
        hop: float = 0.01,
        low_hz: float = 60.0,
        high_hz: float = 500.0,
    ) -> None:
        super().__init__()
        self.sample_rate, self.hop, self.low_hz, self.high_hz = sample_rate, hop, low_hz, high_hz
        self.framing = Framing(round(sample_rate * frame_length), round(sample_rate * hop), "zero")

    @property
    def geometry(self) -> Geometry:
        """Where the frames stand, but for pitch, whose windows are longer."""
        return self.framing.geometry

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.geometry.frame_rate(self.sample_rate)

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Frames for samples."""
        return self.geometry.output_lengths(lengths)

    @torch.no_grad()
    def forward(self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"] | None = None) -> Features:
        """Features of each item; zeros beyond an item's own frames."""
        if lengths is None:
            lengths = torch.full((len(waveform),), waveform.shape[1], device=waveform.device)
        counts = self.output_lengths(lengths)
        levels = map_frames(waveform, lengths, self.framing, _levels, 2)
        pitch = f0(waveform, self.sample_rate, lengths, self.low_hz, self.high_hz, self.hop)
        found = pitch.f0
        missing = levels.shape[1] - found.shape[1]
        found = nn.functional.pad(found, (0, max(0, missing)))[:, : levels.shape[1]]
        middle = 0.5 * math.log(self.low_hz * self.high_hz)
        log_pitch = bridged(found.clamp(min=1.0).log(), found > 0, middle)
        values = torch.stack([log_pitch, (found > 0).to(levels.dtype), levels[..., 0], levels[..., 1]], dim=2)
        return Features(values * valid_mask(counts, values.shape[1])[..., None], counts, self.frame_rate)


def _levels(rows: Float[Tensor, "row time"]) -> Float[Tensor, "row two"]:
    """Log of the mean square, and the share of neighbours of unlike sign; silence crosses nothing."""
    energy = rows.square().mean(dim=1).clamp(min=_FLOOR).log()
    above = rows >= 0
    crossings = (above[:, 1:] != above[:, :-1]).to(rows.dtype).mean(dim=1)
    return torch.stack([energy, crossings], dim=1)
