"""Noise at a signal-to-noise ratio: from a bank of recordings, or generated with a spectrum that falls as 1/f^exponent."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.audio.augment.clips import Clips
from sonorant.audio.augment.convolve import convolve
from sonorant.audio.augment.draws import Draws, check_range, wide
from sonorant.audio.augment.items import Change, Items, augmented, silenced
from sonorant.audio.augment.level import gain_for_snr
from sonorant.core.config import within
from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch

__all__ = ["COLOURS", "Noise", "add_noise", "coloured_noise"]

COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0, "blue": -1.0, "violet": -2.0}
"""Colour → exponent: power falls as 1 / f ** exponent (3 dB an octave for each 1)."""

SHAPING_SECONDS = 0.125
"""Length of the shaping filter: the slope holds down to about 1 / SHAPING_SECONDS = 8 Hz, and is flat below."""


def add_noise(
    waveform: Float[Tensor, "batch *channel time"],
    lengths: Int[Tensor, " batch"],
    noise: Float[Tensor, "batch *channel time"],
    snr_db: Float[Tensor, " batch"],
    *,
    sample_rate: int,
) -> Float[Tensor, "batch *channel time"]:
    """Adds `noise` so that the ratio of powers is `snr_db` where the waveform is active; padding stays zero.

    Args:
        waveform: speech.
        lengths: samples of each item.
        noise: as long as the waveform, of any level.
        snr_db: ratio of speech to noise in dB.
        sample_rate: Hz; activity is judged in frames of 20 ms.
    """
    return waveform + silenced(noise * gain_for_snr(waveform, lengths, noise, snr_db, sample_rate), lengths)


def coloured_noise(
    draws: Draws, name: str, num_samples: int, exponent: Float[Tensor, " batch"], sample_rate: int
) -> Float[Tensor, "batch time"]:
    """Gaussian noise of about unit power whose spectrum falls as 1 / f ** exponent.

    White noise passes h[n] = h[n-1] (n - 1 + exponent/2) / n, the impulse response of (1 - 1/z) ** (-exponent/2)
    (Kasdin, 1995, https://doi.org/10.1109/5.381848), cut to 1/8 s with a fading window. A fixed filter, and not one
    FFT over the whole noise, makes sample t a function of the seed alone, whatever length is asked for.
    """
    taps = max(2, round(SHAPING_SECONDS * sample_rate))
    steps = torch.arange(1, taps, device=exponent.device, dtype=wide(exponent))
    factors = (steps - 1 + exponent.to(steps)[:, None] / 2) / steps
    response = torch.cat((torch.ones_like(factors[:, :1]), factors), dim=1).cumprod(dim=1)
    fade = torch.hann_window(2 * taps, device=exponent.device, dtype=factors.dtype)[taps:]
    response = response * fade
    response = (response / response.square().sum(dim=1, keepdim=True).sqrt()).float()
    white = draws.normals(name, num_samples + taps - 1)
    # The first taps - 1 samples are the filter running in.
    return convolve(white, response)[:, taps - 1 :]


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Adds noise from a bank, or generated in a colour drawn for each item.

    Every channel gets a stretch of its own, as in a diffuse field.

    >>> batch = Batch(torch.randn(1, 800), torch.tensor([800]), 16000, seeds=torch.tensor([1]))
    >>> Noise(colours=("pink",), snr_db=(10, 10))(batch).waveform.shape
    torch.Size([1, 800])
    """

    clips: Clips | None = None
    """Recorded noises; None for generated ones."""
    colours: tuple[str, ...] = ("white", "pink", "brown")
    """Of generated noise: names from COLOURS."""
    snr_db: tuple[float, float] = (0.0, 20.0)
    """Range of the ratio of speech to noise."""
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("Noise.prob", self.prob, 0, 1)
        check_range("Noise.snr_db", self.snr_db)
        unknown = [colour for colour in self.colours if colour not in COLOURS]
        if unknown or not self.colours:
            raise ConfigError(f"Noise.colours must be some of {', '.join(COLOURS)}, got {self.colours}")

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        if self.clips is not None:
            self.clips.expect_rate(batch.sample_rate, "Noise")
        return augmented(batch, f"{stream}/noise", self.prob, self._change)

    def _change(self, items: Items) -> Change:
        noise = torch.cat([self._noise(items, channel) for channel in range(items.waveform.shape[1])], dim=1)
        snr_db = items.draws.uniform("snr_db", *self.snr_db)
        noise = noise.to(items.waveform)
        return Change(add_noise(items.waveform, items.lengths, noise, snr_db, sample_rate=items.sample_rate))

    def _noise(self, items: Items, channel: int) -> Float[Tensor, "part 1 time"]:
        num_samples = items.waveform.shape[-1]
        if self.clips is not None:
            return self.clips.draw(items.draws, f"{channel}", num_samples)[:, :1]
        exponents = torch.tensor([COLOURS[colour] for colour in self.colours], device=items.waveform.device)
        exponent = exponents[items.draws.integer("colour", 0, len(exponents))]
        return coloured_noise(items.draws, f"white/{channel}", num_samples, exponent, items.sample_rate)[:, None]
