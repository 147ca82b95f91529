"""Pitch shift: by semitones with the duration kept: a change of tempo undone by a change of speed."""

from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.audio.augment.draws import wide
from sonorant.audio.augment.items import Change, Items, augmented, silenced, with_duration
from sonorant.audio.augment.speed import as_ratio, resample_groups
from sonorant.audio.augment.tempo import change_tempo
from sonorant.core.config import within
from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch

__all__ = ["PitchShift", "shift_pitch"]


def shift_pitch(
    waveform: Float[Tensor, "batch channel time"],
    lengths: Int[Tensor, " batch"],
    which: Int[Tensor, " batch"],
    semitones: tuple[float, ...],
    *,
    sample_rate: int,
) -> Float[Tensor, "batch channel time"]:
    """Shifts item i by `semitones[which[i]]`; formants move along, as on a tape.

    Semitones come as a short list because each needs a resampler of its own (`resample_groups`); a step is hit within two
    cents (hundredths of a semitone).
    """
    ratios = [_ratio(step) for step in semitones]
    factor = torch.tensor([float(ratio) for ratio in ratios], device=which.device, dtype=wide(waveform))[which]
    longer, _ = change_tempo(waveform, lengths, 1 / factor, sample_rate=sample_rate)
    return silenced(with_duration(resample_groups(longer, which, ratios), waveform.shape[-1]), lengths)


def _ratio(semitones: float) -> Fraction:
    return as_ratio(2 ** (semitones / 12))


@dataclass(frozen=True, kw_only=True)
class PitchShift:
    """Moves the pitch of each item up or down, with the times kept."""

    semitones: tuple[float, ...] = (-3.0, -2.0, -1.0, 1.0, 2.0, 3.0)
    """Drawn with equal chances."""
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("PitchShift.prob", self.prob, 0, 1)
        if not self.semitones:
            raise ConfigError("PitchShift.semitones must hold at least one step, got none")
        for step in self.semitones:
            within("PitchShift.semitones", step, -24, 24)

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        return augmented(batch, f"{stream}/pitch_shift", self.prob, self._change)

    def _change(self, items: Items) -> Change:
        which = items.draws.integer("semitones", 0, len(self.semitones))
        rate = items.sample_rate
        return Change(shift_pitch(items.waveform, items.lengths, which, self.semitones, sample_rate=rate))
